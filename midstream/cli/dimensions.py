"""``midstream dimensions``: bring many objects in from a file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import click

from midstream.cli._common import Refused, open_registry, print_json, printable, read_settings, say
from midstream.cli._loading import Outcome, shown_progress

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from midstream.settings import Settings
    from midstream.sources.reading import Item

_TYPES = ("user", "organisation", "location", "batch", "user_course", "content", "device")
_MAX_ERRORS_SHOWN = 100
_MAX_IDS_SHOWN = 10


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
    from midstream.kafka.dimension_publisher import PublishError
    from midstream.registry.errors import RegistryError
    from midstream.row_files import FileError

    settings = read_settings()
    outcome = Outcome()
    failure = ""
    with open_registry() as engine:
        try:
            asyncio.run(_load(settings, type_, file, outcome, engine))
        except (PublishError, RegistryError) as error:
            failure = f"{error}: {outcome.accepted} rows are loaded; load the file again"
        except FileError as error:
            failure = f"{error}: {outcome.accepted} rows are loaded"
    outcome.end(failure, "loaded", as_json)


@dimensions.command()
@click.argument("type_", metavar="TYPE", type=click.Choice(_TYPES))
@click.option("--json", "as_json", is_flag=True, help="Print an object: accepted, refused, errors, ids.")
def check(type_: str, as_json: bool) -> None:
    """Read the configured source of TYPE to its end, and publish nothing.

    Says how many rows it gives, which cannot be taken (the first 100) and the ids of the first ones; the exit code is 1
    when some cannot be taken, and when the source cannot be read. The file of sources is named by
    MIDSTREAM_DIMENSION_SOURCES.
    """
    from midstream.dimensions import DimensionType
    from midstream.sources.errors import SourceError
    from midstream.sources.opening import open_sources

    settings = read_settings()
    outcome = Checked()
    failure = ""
    try:
        source = open_sources(settings).get(DimensionType(type_))
        if source is None:
            raise Refused(f"no source is configured for {type_}: MIDSTREAM_DIMENSION_SOURCES names the file of sources")
        with closing(source.read()) as reading:
            for block in reading:
                outcome.take(block)
    except SourceError as error:
        failure = f"{error.code}: {error}"
    outcome.end(failure, as_json)


@dataclass(slots=True)
class Checked:
    """What a source gives. ``errors`` and ``ids`` hold the first ones only."""

    accepted: int = 0
    refused: int = 0
    errors: list[dict[str, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def take(self, block: Sequence[Item]) -> None:
        """Count the rows of a block."""
        from midstream.dimensions import Dimension

        for item in block:
            if isinstance(item, Dimension):
                self.accepted += 1
                if len(self.ids) < _MAX_IDS_SHOWN:
                    self.ids.append(item.id)
            else:
                self.refused += 1
                if len(self.errors) < _MAX_ERRORS_SHOWN:
                    self.errors.append({"place": item.place, "code": item.code, "message": item.message})

    def end(self, failure: str, as_json: bool) -> None:
        """Tell what came, and end the command with exit code 1 unless all could be taken."""
        for error in self.errors:
            say(printable(f"{error['place']}: {error['code']}: {error['message']}"))
        if self.refused > len(self.errors):
            say(f"and {self.refused - len(self.errors)} more")
        if as_json:
            print_json(asdict(self))
        if failure:
            raise Refused(printable(failure) if "\n" not in failure else failure)
        say(f"{self.accepted} can be taken, {self.refused} refused")
        if self.ids:
            say(printable(f"first ids: {', '.join(self.ids)}"))
        if self.refused:
            sys.exit(1)


async def _load(settings: Settings, type_: str, file: BinaryIO, outcome: Outcome, engine: Engine) -> None:
    from midstream.dimension_files import read_items
    from midstream.dimensions import Dimension, DimensionType, VersionClock
    from midstream.kafka.dimension_publisher import DimensionPublisher
    from midstream.registry.sync.erasures import Erasures
    from midstream.row_files import FileError, Refusal

    erased = partial(Erasures(settings, engine).among, type_)
    publisher = DimensionPublisher(settings)
    bulk = publisher.bulk()
    try:
        try:
            with shown_progress(file) as progress:
                for items, position in read_items(
                    DimensionType(type_), file, VersionClock(), settings.max_dimension_bytes, erased
                ):
                    rows: list[Dimension] = []
                    for item in items:
                        if isinstance(item, Refusal):
                            outcome.refuse(item)
                        else:
                            rows.append(item)
                    await bulk.add(rows)
                    progress(position)
                    await asyncio.sleep(0)  # lets the producer's own task run while the file is read
        except FileError:
            await bulk.finish()  # what was read before is loaded
            raise
        await bulk.finish()
    finally:
        await publisher.close()
        outcome.accepted = bulk.acknowledged
