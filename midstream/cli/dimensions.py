"""``midstream dimensions``: bring many objects in from a file."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, BinaryIO

import click

from midstream.cli._common import Refused, print_json, read_settings, say

if TYPE_CHECKING:
    from rich.progress import Progress

    from midstream.dimension_files import Refusal
    from midstream.settings import Settings

_MAX_ERRORS_SHOWN = 100
_TYPES = ("user", "organisation", "location", "batch", "user_course", "content", "device")


@dataclass(slots=True)
class _Outcome:
    """What became of a file's rows. ``errors`` holds the first refusals only."""

    accepted: int = 0
    refused: int = 0
    errors: list[Refusal] = field(default_factory=list)

    def refuse(self, refusal: Refusal) -> None:
        self.refused += 1
        if len(self.errors) < _MAX_ERRORS_SHOWN:
            self.errors.append(refusal)


@click.group()
def dimensions() -> None:
    """Users, devices, content and other objects that events speak of."""


@dimensions.command()
@click.argument("type_", metavar="TYPE", type=click.Choice(_TYPES))
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Print an object: accepted, refused, errors.")
def load(type_: str, file: BinaryIO, as_json: bool) -> None:
    """Load FILE (- for standard input) into the objects of TYPE.

    TYPE is user, organisation, location, batch, user_course, content or device.

    FILE is JSON lines, {"id", "attributes", "version"?}, or CSV with a header row: its columns "id" and "version"
    (optional) are the object's, every other becomes an attribute of that name, as text; an empty cell becomes none.
    Either may be gzipped. A row that cannot be taken is named and passed over, and the exit code is then 1. The
    same file may be loaded again.
    """
    from midstream.dimension_files import FileError
    from midstream.kafka.dimension_publisher import PublishError

    settings = read_settings()
    outcome = _Outcome()
    failure = ""
    try:
        asyncio.run(_load(settings, type_, file, outcome))
    except PublishError as error:
        failure = f"{error}: {outcome.accepted} rows are loaded; load the file again"
    except FileError as error:
        failure = f"{error}: {outcome.accepted} rows are loaded"
    for refusal in outcome.errors:
        say(f"line {refusal.line}: {refusal.code}: {refusal.message}")
    if outcome.refused > len(outcome.errors):
        say(f"and {outcome.refused - len(outcome.errors)} more")
    if as_json:
        print_json(asdict(outcome))
    if failure:
        raise Refused(failure)
    say(f"{outcome.accepted} loaded, {outcome.refused} refused")
    if outcome.refused:
        sys.exit(1)


async def _load(settings: Settings, type_: str, file: BinaryIO, outcome: _Outcome) -> None:
    from midstream.dimension_files import FileError, Refusal, read_items
    from midstream.dimensions import Dimension, DimensionType, VersionClock
    from midstream.kafka.dimension_publisher import DimensionPublisher

    publisher = DimensionPublisher(settings)
    bulk = publisher.bulk()
    try:
        try:
            with _progress() as progress:
                task = progress.add_task("loading", total=_size(file))
                for items, position in read_items(
                    DimensionType(type_), file, VersionClock(), settings.max_dimension_bytes
                ):
                    rows: list[Dimension] = []
                    for item in items:
                        if isinstance(item, Refusal):
                            outcome.refuse(item)
                        else:
                            rows.append(item)
                    await bulk.add(rows)
                    progress.update(task, completed=position)
                    await asyncio.sleep(0)  # lets the producer's own task run while the file is read
        except FileError:
            await bulk.finish()  # what was read before is loaded
            raise
        await bulk.finish()
    finally:
        await publisher.close()
        outcome.accepted = bulk.acknowledged


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def _size(file: BinaryIO) -> int | None:
    """Return the file's size in bytes; None for a pipe."""
    if not file.seekable():
        return None
    size = file.seek(0, 2)
    file.seek(0)
    return size
