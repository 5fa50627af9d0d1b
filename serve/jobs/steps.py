"""The steps of each kind of job, in order.

A sync: read the source (if the type has one) to its end; publish what is new, and tombstones for what the source has no
more; wait until ClickHouse has it, and until ``store`` has stored what it denormalised before; correct the stored
events. A deletion publishes a tombstone instead. An erasure first has ``store`` know of it, as what it stores later
must not name the object; the rest is another's work (:class:`serve.jobs.tools.Erases`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from midstream.dimensions import Dimension, DimensionType, now_ms
from midstream.erased import erased_row, pseudonym
from midstream.registry.sync.queue import Outcome
from serve.jobs.errors import AwayError, FailedError
from serve.jobs.held import HeldJob
from serve.jobs.known import all_known, deletion, find_known
from serve.jobs.publish import Published, publish_row, publish_staged
from serve.jobs.settle import until_settled, until_visible
from serve.jobs.tools import Staged, Tools
from serve.sync.alive import alive, count_alive

EVENTS = "events"


async def run_job(held: HeldJob, tools: Tools, ids: Sequence[str] | None) -> Outcome:
    """Do what a job is to do.

    Args:
        held: the job.
        tools: what the steps work with.
        ids: of the job; None: all of its type.

    Raises:
        FailedError, TryAgainError, AwayError, StoppedError: it does not come to its end.
        ClickHouseError, PublishError, KafkaError, RegistryUnavailable: a part is away.
    """
    if held.job.kind == "sync":
        return await _sync(held, tools, ids)
    (id_,) = ids or ("",)
    if held.job.kind == "delete":
        return await _delete(held, tools, id_)
    return await _erase(held, tools, id_)


async def run_resweep(held: HeldJob, tools: Tools, ids: Sequence[str] | None) -> Outcome:
    """Look through the events of a job that is done once more: what ``store`` stored late gets the copies too."""
    held.begin("resweep")
    await _correct(held, tools, ids)
    return Outcome(held.objects, held.changed)


async def _sync(held: HeldJob, tools: Tools, ids: Sequence[str] | None) -> Outcome:
    type_ = DimensionType(held.job.type)
    if ids is not None and not ids:
        return Outcome(0, held.changed, {})
    report: dict[str, Any] | None = None
    answers: Mapping[str, bool] = {}
    if await asyncio.to_thread(tools.sources.has, type_):
        staged = await _read(held, tools, type_, ids)
        try:
            answers = staged.answers()
            held.objects = staged.rows if ids is None else len(ids)
            report = await _publish(held, tools, staged, ids)
            watermark = staged.watermark if ids is None else None
        finally:
            await asyncio.to_thread(staged.close)
        if watermark is not None:
            await asyncio.to_thread(tools.watermarks.note, type_, watermark)
    else:
        held.objects = len(ids) if ids is not None else await asyncio.to_thread(count_alive, tools.rows, type_)
    held.begin("wait for ClickHouse")
    await until_visible(held, tools)
    response = None
    if ids is not None:
        there = await asyncio.to_thread(alive, tools.rows, type_, ids)
        response = {id_: id_ in there and answers.get(id_, True) for id_ in ids}
        await asyncio.to_thread(tools.answer, held.job.id, response)
    await _settle_and_correct(held, tools, ids)
    return Outcome(held.objects, held.changed, response, report, tools.limits.resweep_s)


async def _read(held: HeldJob, tools: Tools, type_: DimensionType, ids: Sequence[str] | None) -> Staged:
    held.begin("read the source")
    since = None
    if ids is None and not held.job.options.get("full", False):
        since = await asyncio.to_thread(tools.watermarks.watermark, type_)

    def progress(rows: int) -> None:
        held.check()
        held.advance(rows)

    return await asyncio.to_thread(tools.sources.read, type_, ids, since, progress)


async def _publish(held: HeldJob, tools: Tools, staged: Staged, ids: Sequence[str] | None) -> dict[str, Any]:
    """Publish what is new; return what is reported of it."""
    gone = withheld = 0
    if staged.whole:
        held.begin("compare")
        known = all_known(tools.rows, held.job.type, ids, staged.began_ms)
        force = held.job.options.get("force", False)
        gone, withheld = await asyncio.to_thread(staged.add_gone, known, force=force)
    held.begin("publish", staged.rows + gone)
    published: Published = await publish_staged(held, tools, staged)
    return {
        "source": {
            "rows": staged.rows,
            "refused": staged.refused,
            "refusals": staged.refusals(),
            "gone": gone,
            "withheld": withheld,
            "published": published.rows,
            "same": published.same,
            "older": published.older,
            "erased": published.erased,
            "whole": staged.whole,
        }
    }


async def _delete(held: HeldJob, tools: Tools, id_: str) -> Outcome:
    type_ = DimensionType(held.job.type)
    held.begin("wait for ClickHouse")
    await until_visible(held, tools)  # of a push that came before, the version is known then
    held.begin("publish", 1)
    known = await asyncio.to_thread(find_known, tools.rows, type_, [id_])
    row = deletion(type_, id_, known.get(id_), now_ms())
    if row is not None:
        await publish_row(held, tools, row)
    held.begin("wait for ClickHouse")
    await until_visible(held, tools)
    await _settle_and_correct(held, tools, (id_,))
    return Outcome(1, held.changed, {id_: False}, resweep_s=tools.limits.resweep_s)


async def _erase(held: HeldJob, tools: Tools, id_: str) -> Outcome:
    type_ = DimensionType(held.job.type)
    if type_ is not DimensionType.USER:  # before anything says that it was erased
        raise FailedError(f"a {type_} cannot be erased: only users can")
    held.begin("erase")
    digest = await asyncio.to_thread(tools.erased.digest, type_, id_)
    await asyncio.to_thread(tools.erased.add, digest, type_, held.job.id)  # from now on it is not taken again
    await _tell_of_erased(held, tools, type_, id_, digest)

    def progress(phase: str, done: int, total: int) -> None:
        if held.phase != (named := f"erase: {phase}"):
            held.begin(named, total)
        held.check()
        held.advance(done, total)

    done = await asyncio.to_thread(tools.erases.erase, type_, id_, digest, progress, held.check)
    for table, rows in done.changed.items():
        held.count(table, rows)
    await asyncio.to_thread(tools.erased.forget, type_, id_, digest)
    return Outcome(1, held.changed, report=done.report, ids=(pseudonym(digest),))


async def _tell_of_erased(held: HeldJob, tools: Tools, type_: DimensionType, id_: str, digest: str) -> None:
    """Have ``store`` put the pseudonym in the place of the id in all that it stores from now on."""
    await tools.publisher.publish(erased_row(digest, now_ms()))
    known = await asyncio.to_thread(find_known, tools.rows, type_, [id_])
    row = deletion(type_, id_, known.get(id_), now_ms())
    if row is not None:  # workers hear of it, and drop their copy
        await tools.publisher.publish(row)
    await tools.publisher.forget(row or Dimension(type_, id_, "{}", 0, True, 0))
    held.begin("wait for ClickHouse")
    await until_visible(held, tools)
    held.begin("wait for store")
    if not await until_settled(held, tools):
        raise AwayError(f"`store` has not stored in {tools.limits.settle_s:g} s what it had before the erasure")


async def _settle_and_correct(held: HeldJob, tools: Tools, ids: Sequence[str] | None) -> None:
    held.begin("wait for store")
    await until_settled(held, tools)
    held.begin("correct")
    await _correct(held, tools, ids)


async def _correct(held: HeldJob, tools: Tools, ids: Sequence[str] | None) -> None:
    type_ = DimensionType(held.job.type)
    rows = await asyncio.to_thread(tools.corrects.correct, type_, ids, held.advance, held.should_stop)
    held.count(EVENTS, rows)
    held.check()  # it may have stopped half way
