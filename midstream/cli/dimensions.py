"""``midstream dimensions``: bring many objects in from a file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, BinaryIO

import click

from midstream.cli._common import read_settings
from midstream.cli._loading import Outcome, shown_progress

if TYPE_CHECKING:
    from midstream.settings import Settings

_TYPES = ("user", "organisation", "location", "batch", "user_course", "content", "device")


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
    from midstream.row_files import FileError

    settings = read_settings()
    outcome = Outcome()
    failure = ""
    try:
        asyncio.run(_load(settings, type_, file, outcome))
    except PublishError as error:
        failure = f"{error}: {outcome.accepted} rows are loaded; load the file again"
    except FileError as error:
        failure = f"{error}: {outcome.accepted} rows are loaded"
    outcome.end(failure, "loaded", as_json)


async def _load(settings: Settings, type_: str, file: BinaryIO, outcome: Outcome) -> None:
    from midstream.dimension_files import read_items
    from midstream.dimensions import Dimension, DimensionType, VersionClock
    from midstream.kafka.dimension_publisher import DimensionPublisher
    from midstream.row_files import FileError, Refusal

    publisher = DimensionPublisher(settings)
    bulk = publisher.bulk()
    try:
        try:
            with shown_progress(file) as progress:
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
                    progress(position)
                    await asyncio.sleep(0)  # lets the producer's own task run while the file is read
        except FileError:
            await bulk.finish()  # what was read before is loaded
            raise
        await bulk.finish()
    finally:
        await publisher.close()
        outcome.accepted = bulk.acknowledged
