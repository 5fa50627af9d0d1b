"""Rows that a source gave, to Kafka: those that say something new."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from midstream.dimensions import Dimension
from midstream.logs import get_logger
from serve.jobs.held import HeldJob
from serve.jobs.known import Changes, changes, find_known
from serve.jobs.tools import Staged, Tools

_log = get_logger(__name__)

TABLE = "dimensions"


@dataclass(slots=True)
class Published:
    """What became of a source's rows."""

    rows: int = 0
    same: int = 0
    older: int = 0
    erased: int = 0


async def publish_staged(held: HeldJob, tools: Tools, staged: Staged) -> Published:
    """Publish what is new of a source's rows; return when Kafka has acknowledged all.

    Rows that were published before an error stay: each is right by itself, and the next try passes over them.

    Raises:
        PublishError, ClickHouseError, RegistryUnavailable: a part is away.
        StoppedError: the job is not to be gone on with.
    """
    force = held.job.options.get("force", False)
    outcome = Published()
    bulk = tools.publisher.bulk()
    counted = done = 0
    blocks = staged.blocks()
    try:
        while (block := await asyncio.to_thread(_next, blocks)) is not None:
            held.check()
            wanted, erased = await asyncio.to_thread(_new, tools, held.job.type, block, force)
            await bulk.add(wanted.rows)
            outcome.same += wanted.same
            outcome.older += wanted.older
            outcome.erased += erased
            done += len(block)
            held.advance(done)
            counted = _count(held, bulk.acknowledged, counted)
        await bulk.finish()
    finally:
        counted = _count(held, bulk.acknowledged, counted)
    outcome.rows = counted
    return outcome


async def publish_row(held: HeldJob, tools: Tools, row: Dimension) -> None:
    """Publish one row; return when Kafka has acknowledged it.

    Raises:
        PublishError: it did not.
    """
    await tools.publisher.publish(row)
    held.count(TABLE, 1)


def _count(held: HeldJob, acknowledged: int, counted: int) -> int:
    if acknowledged > counted:
        held.count(TABLE, acknowledged - counted)
    return acknowledged


def _next(blocks: Iterator[Sequence[Dimension]]) -> Sequence[Dimension] | None:
    return next(blocks, None)


def _new(tools: Tools, type_: str, block: Sequence[Dimension], force: bool) -> tuple[Changes, int]:
    """Return what is to be published of some rows, and how many of them are of erased objects."""
    ids = list(dict.fromkeys(row.id for row in block))
    erased = tools.erased.among(type_, ids)
    rows = [row for row in block if row.id not in erased]
    known = find_known(tools.rows, type_, [id_ for id_ in ids if id_ not in erased])
    return changes(rows, known, force=force), len(block) - len(rows)
