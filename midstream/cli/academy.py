"""``midstream academy``: the academies of learning platforms."""

from __future__ import annotations

from typing import BinaryIO

import click

from midstream.cli._academies import AFTER, FILE, ID, LIMIT, LIST_AS_JSON, LOADED_AS_JSON, import_file, print_page
from midstream.cli._common import open_registry, print_json, say


@click.group()
def academy() -> None:
    """Academies of learning platforms."""


@academy.command()
@click.argument("name")
@click.option("--id", "id_", type=ID, help="The platform's own number of it. Default: one above the highest.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: id, name, status.")
def create(name: str, id_: int | None, as_json: bool) -> None:
    """Create an active academy and print its id."""
    from midstream.registry.academies.academies import Academies

    with open_registry() as engine:
        number = Academies(engine).create(name, id_)
    if as_json:
        print_json({"id": number, "name": name, "status": "active"})
    else:
        click.echo(number)


@academy.command("set")
@click.argument("id_", metavar="ID", type=ID)
@click.option("--status", type=click.Choice(["active", "inactive", "deleted"]), required=True)
def set_(id_: int, status: str) -> None:
    """Make an academy active, inactive or deleted, within one second in every process. Its records stay."""
    from midstream.registry.academies.academies import Academies

    with open_registry() as engine:
        Academies(engine).set_status(id_, status)
    say(f"academy {id_} is {status}")


@academy.command("list")
@LIMIT
@AFTER
@LIST_AS_JSON
def list_academies(limit: int, after: int, as_json: bool) -> None:
    """List academies by id."""
    from midstream.registry.academies.academies import Academies

    with open_registry() as engine:
        found = Academies(engine).page(after=after, limit=limit + 1)
    print_page(("id", "name", "status", "created_at"), found, limit, as_json)


@academy.command("import")
@FILE
@LOADED_AS_JSON
def import_(file: BinaryIO, as_json: bool) -> None:
    """Bring the academies of FILE (- for standard input) in.

    FILE is JSON lines, {"id", "name", "status"?}, or CSV with a header row of these columns; either may be gzipped.
    status is active, inactive or deleted; without one a new academy is active, and one that is there keeps its own. Of
    an academy that is there, name and status become the file's. A row that cannot be taken is named and passed over,
    and the exit code is then 1. The same file may be imported again.
    """
    from midstream.registry.academies.bulk import ACADEMIES

    import_file(ACADEMIES, file, as_json)
