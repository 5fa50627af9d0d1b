"""What the commands ``academy``, ``user`` and ``role`` share: ids, pages of long lists, rows from a file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from midstream.cli._common import open_registry, print_json, print_table, printable, say
from midstream.cli._loading import Outcome, shown_progress

if TYPE_CHECKING:
    from midstream.registry.academies.bulk import Kind

ID = click.IntRange(1, 2**63 - 1)
FILE = click.argument("file", type=click.File("rb"))
LOADED_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print an object: accepted, refused, errors.")
LIST_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
LIMIT = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=1_000, show_default=True, help="How many at the most."
)
AFTER = click.option("--after", type=click.IntRange(0, 2**63 - 1), default=0, help="Only those with an id above this.")

_R = TypeVar("_R")


def import_file(kind: Kind[_R], file: BinaryIO, as_json: bool) -> None:
    """Bring the rows of a file into the registry, and end the command by what became of them."""
    from midstream.registry.academies.bulk import import_rows
    from midstream.registry.errors import RegistryError
    from midstream.row_files import FileError

    outcome = Outcome()
    failure = ""
    with open_registry() as engine:
        try:
            with shown_progress(file) as progress:
                for stored, position in import_rows(engine, kind, file, outcome.refuse):
                    outcome.accepted += stored
                    progress(position)
        except RegistryError as error:
            failure = f"{error}: {outcome.accepted} rows are imported; import the file again"
        except FileError as error:
            failure = f"{error}: {outcome.accepted} rows are imported"
    outcome.end(failure, "imported", as_json)


def print_page(titles: Sequence[str], rows: Sequence[Sequence[Any]], limit: int, as_json: bool) -> None:
    """Print the first ``limit`` rows, and a word on stderr when there are more.

    Args:
        titles: what each member of a row is.
        rows: of ids, texts and moments.
        limit: how many.
        as_json: as an array of objects.
    """
    shown = rows[:limit]
    if as_json:
        texts = [[one.isoformat() if isinstance(one, datetime) else one for one in row] for row in shown]
        print_json([dict(zip(titles, row, strict=True)) for row in texts])
    else:
        print_table([title.upper() for title in titles], [[_cell(one) for one in row] for row in shown])
    if len(rows) > limit:
        say(f"there are more than {limit}")


def _cell(value: Any) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else printable(str(value))
