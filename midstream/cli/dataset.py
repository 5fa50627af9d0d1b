"""``midstream dataset``: what partners can download."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from midstream.cli._common import open_registry, print_json, print_table, printable, say
from midstream.cli._datasets import LIST_AS_JSON, declared, read_file

if TYPE_CHECKING:
    from midstream.exhaust.dataset import Dataset

_TAGS = "tags"


@click.group()
def dataset() -> None:
    """Datasets: which events partners can download, and in what form. D001 is there by default."""


@dataset.command()
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--name", help="Instead of FILE: its name.")
@click.option("--resource", help="What names a resource: tags (a hash among them; default) or a column of events.")
@click.option("--eid", "eids", multiple=True, help="Events of this kind only; may be given again.")
@click.option("--channel", "channels", multiple=True, help="Events of this channel only; may be given again.")
@click.option(
    "--column", "columns", multiple=True, help="Lines of this column; may be given again. Default: events as they came."
)
@click.option("--retention-days", type=int, help="How long days can be downloaded. Default: 0, for ever.")
@click.option("--json", "as_json", is_flag=True, help="Print the declaration, an object.")
def declare(
    file: BinaryIO | None,
    name: str | None,
    resource: str | None,
    eids: tuple[str, ...],
    channels: tuple[str, ...],
    columns: tuple[str, ...],
    retention_days: int | None,
    as_json: bool,
) -> None:
    """Create or replace a dataset and print its name; within one second it holds in every process.

    FILE (- for standard input) is a JSON object: name, resource, filter (a list of {"column", "in"} or {"column",
    "not_in"}, each with a list of texts), columns, retention_days. Or give --name and what else is wanted.
    """
    from midstream.exhaust.dataset import to_declaration
    from midstream.registry.exhaust.datasets import Datasets

    options = (name, resource, eids, channels, columns, retention_days)
    if file is not None and any(one not in (None, ()) for one in options):
        raise click.UsageError("FILE says all of a dataset: give it, or the options")
    if file is None and name is None:
        raise click.UsageError("give FILE or --name")
    if file is not None:
        wanted = read_file(file)
    else:
        filters = (("eid", eids), ("channel", channels))
        wanted = declared(
            {
                "name": name,
                "resource": _TAGS if resource is None else resource,
                "filter": [{"column": column, "in": list(values)} for column, values in filters if values],
                "columns": list(columns),
                "retention_days": retention_days or 0,
            }
        )
    with open_registry() as engine:
        outcome = Datasets(engine).declare(wanted)
    if as_json:
        print_json(to_declaration(wanted))
    else:
        click.echo(wanted.name)
    say(f"{wanted.name} is {outcome}")


@dataset.command("list")
@LIST_AS_JSON
def list_datasets(as_json: bool) -> None:
    """List all datasets by name."""
    from midstream.exhaust.dataset import to_declaration
    from midstream.registry.exhaust.datasets import Datasets

    with open_registry() as engine:
        found = Datasets(engine).list()
    if as_json:
        print_json([to_declaration(one) for one in found])
    else:
        print_table(["NAME", "RESOURCE", "FILTER", "COLUMNS", "RETENTION"], [_cells(one) for one in found])


@dataset.command()
@click.argument("name")
def show(name: str) -> None:
    """Print the declaration of a dataset, which `dataset declare -` takes."""
    from midstream.exhaust.dataset import to_declaration
    from midstream.registry.exhaust.datasets import Datasets

    with open_registry() as engine:
        found = Datasets(engine).get(name)
    click.echo(json.dumps(to_declaration(found), indent=2))


def _cells(one: Dataset) -> list[str]:
    conditions: list[Any] = [
        f"{condition.column} {condition.operator.replace('_', ' ')} {','.join(condition.values)}"
        for condition in one.filter
    ]
    return [
        one.name,
        one.resource,
        printable(" and ".join(conditions)) or "all",
        ",".join(one.columns) or "as came",
        f"{one.retention_days} d" if one.retention_days else "for ever",
    ]
