"""``midstream role``: what users may do in academies."""

from __future__ import annotations

from typing import BinaryIO

import click

from midstream.cli._academies import FILE, ID, LIMIT, LIST_AS_JSON, LOADED_AS_JSON, import_file, print_page
from midstream.cli._common import open_registry, say


@click.group()
def role() -> None:
    """What users may do in academies: capabilities such as crud_telemetry or read_telemetry."""


@role.command()
@click.argument("user", type=ID)
@click.argument("academy", type=ID)
@click.argument("capability")
def grant(user: int, academy: int, capability: str) -> None:
    """Give USER a capability in ACADEMY, within one second in every process. Giving it again changes nothing."""
    from midstream.registry.academies.grants import Grants

    with open_registry() as engine:
        new = Grants(engine).grant(user, academy, capability)
    say(f"user {user} {'has' if new else 'had'} {capability} in academy {academy}{'' if new else ' already'}")


@role.command()
@click.argument("user", type=ID)
@click.argument("academy", type=ID)
@click.argument("capability")
def revoke(user: int, academy: int, capability: str) -> None:
    """Take a capability from USER in ACADEMY, within one second in every process."""
    from midstream.registry.academies.grants import Grants

    with open_registry() as engine:
        Grants(engine).revoke(user, academy, capability)
    say(f"user {user} has no {capability} in academy {academy} any more")


@role.command("list")
@click.option("--user", type=ID, help="Of this user only.")
@click.option("--academy", type=ID, help="In this academy only.")
@LIMIT
@LIST_AS_JSON
def list_roles(user: int | None, academy: int | None, limit: int, as_json: bool) -> None:
    """List who may do what, by user and academy."""
    from midstream.registry.academies.grants import Grants

    with open_registry() as engine:
        found = Grants(engine).list(user_id=user, academy_id=academy, limit=limit + 1)
    print_page(("user", "academy", "capability"), found, limit, as_json)


@role.command("import")
@FILE
@LOADED_AS_JSON
def import_(file: BinaryIO, as_json: bool) -> None:
    """Give the capabilities of FILE (- for standard input).

    FILE is JSON lines, {"user", "academy", "capability"}, or CSV with a header row of these columns; either may be
    gzipped. user and academy are ids. What is not in the file stays as it is. A row that cannot be taken is named and
    passed over, and the exit code is then 1. The same file may be imported again.
    """
    from midstream.registry.academies.bulk import GRANTS

    import_file(GRANTS, file, as_json)
