"""``midstream licence``: the keys with which partners download datasets."""

from __future__ import annotations

from datetime import datetime

import click

from midstream.cli._common import open_registry, print_json, print_table, say
from midstream.cli._datasets import DATASETS, LIST_AS_JSON, RESOURCES, paired
from midstream.cli._moment import Moment

_MAX_LISTED = 100_000


@click.group()
def licence() -> None:
    """Licences: keys of partners, and which resources of which datasets they may download."""


@licence.command()
@click.argument("name")
@DATASETS
@RESOURCES
@click.option("--expires", type=Moment(), help="When it ends: ISO 8601 (UTC), or a span such as 90d, 12h, 30m.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: name, key, expires_at.")
def create(
    name: str, datasets: tuple[str, ...], resources: tuple[str, ...], expires: datetime | None, as_json: bool
) -> None:
    """Create a licence and print its key; it is shown this once. A revoked one is made anew."""
    from midstream.registry.exhaust.licences import Licences

    rights = paired(datasets, resources)
    with open_registry() as engine:
        key = Licences(engine).create(name, rights, expires)
    if as_json:
        print_json({"name": name, "key": key, "expires_at": expires and expires.isoformat()})
    else:
        click.echo(key)


@licence.command("list")
@click.option(
    "--limit", type=click.IntRange(1, _MAX_LISTED), default=1_000, show_default=True, help="How many at the most."
)
@click.option("--after", default="", help="Only those with a name after this.")
@LIST_AS_JSON
def list_licences(limit: int, after: str, as_json: bool) -> None:
    """List licences by name; keys are not shown again."""
    from midstream.registry.exhaust.licences import Licences

    with open_registry() as engine:
        found = Licences(engine).list(after=after, limit=limit + 1)
    shown = found[:limit]
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "state": one.state,
                    "rights": [{"dataset": right.dataset, "resource": right.resource} for right in one.rights],
                    "created_at": one.created_at.isoformat(),
                    "expires_at": one.expires_at and one.expires_at.isoformat(),
                    "revoked_at": one.revoked_at and one.revoked_at.isoformat(),
                    "last_used_at": one.last_used_at and one.last_used_at.isoformat(),
                }
                for one in shown
            ]
        )
    else:
        print_table(
            ["NAME", "STATE", "CREATED", "EXPIRES", "LAST USED", "RIGHTS"],
            [
                [
                    one.name,
                    one.state,
                    one.created_at.isoformat(timespec="seconds"),
                    one.expires_at.isoformat(timespec="seconds") if one.expires_at else "never",
                    one.last_used_at.isoformat(timespec="minutes") if one.last_used_at else "never",
                    " ".join(f"{right.dataset}/{right.resource}" for right in one.rights) or "none",
                ]
                for one in shown
            ],
        )
    if len(found) > limit:
        say(f"there are more than {limit}")


@licence.command()
@click.argument("name")
@DATASETS
@RESOURCES
def grant(name: str, datasets: tuple[str, ...], resources: tuple[str, ...]) -> None:
    """Give a licence rights, all or none, within one second in every process. Giving one again changes nothing."""
    from midstream.registry.exhaust.licences import Licences

    rights = paired(datasets, resources)
    with open_registry() as engine:
        new = Licences(engine).grant(name, rights)
    say(f"{name}: {new} given, {len(rights) - new} there already")


@licence.command()
@click.argument("name")
@DATASETS
@RESOURCES
def withdraw(name: str, datasets: tuple[str, ...], resources: tuple[str, ...]) -> None:
    """Take rights from a licence, all or none, within one second in every process."""
    from midstream.registry.exhaust.licences import Licences

    rights = paired(datasets, resources)
    with open_registry() as engine:
        Licences(engine).withdraw(name, rights)
    say(f"{name}: {len(rights)} withdrawn")


@licence.command()
@click.argument("key_or_name", metavar="KEY|NAME")
def revoke(key_or_name: str) -> None:
    """End a licence, by its key or its name, within one second in every process."""
    from midstream.registry.exhaust.licences import Licences

    with open_registry() as engine:
        name = Licences(engine).revoke(key_or_name)
    say(f"{name} is revoked")
