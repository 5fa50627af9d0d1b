"""The audit itself: ClickHouse some hours at a time, then Kafka about what does not agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from itertools import chain

from midstream.audit.findings import Finding, Kind, Report, format_time, runs, spans
from midstream.audit.records import KafkaAwayError, RawReader
from midstream.audit.store import AuditStore, Gap, Place, WrongBatch
from midstream.receipt import Receipt
from midstream.settings import Settings

_ROWS_AT_ONCE = 1_000_000
_MAX_RECORDS_READ = 1_000_000
_GAPS_SHOWN = 1_000
_EIDS_SHOWN = 1_000

Told = Callable[[str, float], None]
"""Told what is done, and how much of it (0 to 1)."""


class NothingCompleteError(Exception):
    """There is nothing yet that could be proven; the message says why."""


async def audit(
    settings: Settings, store: AuditStore, from_ms: int | None, to_ms: int | None, limit: int, told: Told
) -> Report:
    """Audit what was received from ``from_ms`` on and before ``to_ms`` (epoch milliseconds).

    Without them, it begins with the oldest row whose neighbours are kept and ends with ``complete_until``, and it never
    goes beyond these: before is nothing, and what is later is in flight.

    Raises:
        ClickHouseError: ClickHouse does not answer.
        NothingCompleteError: no moment is known before which everything is complete, or there is nothing before it to
            look at.
    """
    newest_ms, complete_ms = store.bounds()
    if not complete_ms:
        raise NothingCompleteError(
            "`complete_until` is not known yet: no collector has said how far it is, or store does not run"
        )
    oldest_ms = store.oldest_row()
    begin_ms = max(oldest_ms, from_ms or 0)
    if begin_ms >= complete_ms:
        raise NothingCompleteError(
            f"`complete_until` is {format_time(complete_ms)}, and what there is to look at begins at "
            f"{format_time(begin_ms)}: it may be in flight"
        )
    asked_to_ms = complete_ms if to_ms is None else to_ms
    end_ms = min(asked_to_ms, complete_ms)
    report = Report(min(begin_ms, end_ms) if oldest_ms else end_ms, end_ms, complete_ms, limit)
    owed_ms = store.owed_from()
    if oldest_ms and report.from_ms < min(owed_ms, end_ms):
        if owed_ms >= end_ms:
            raise NothingCompleteError(f"retention may have deleted events of all before {format_time(owed_ms)}")
        report.from_ms = owed_ms
        report.notes.append(f"begins at {format_time(owed_ms)}: of what is older, retention may have deleted events")
    if asked_to_ms > complete_ms:
        report.notes.append(f"ends at complete_until, {format_time(complete_ms)}: what is later may be in flight")
    in_flight_to_ms = newest_ms + 1 if to_ms is None else min(asked_to_ms, newest_ms + 1)
    if in_flight_to_ms > complete_ms:
        batches, report.counts.in_flight = store.in_flight(complete_ms, in_flight_to_ms)
        if batches:
            report.notes.append(f"in flight: {batches} batches received after complete_until")
    wrong = _compare(store, report, told)
    _find_doubled(store, report, told)
    await _ask_kafka(settings, store, report, wrong, told)
    if not report.counts.batches:
        report.notes.append("no batch was received in this time")
    return report


def _compare(store: AuditStore, report: Report, told: Told) -> list[WrongBatch]:
    wrong: list[WrongBatch] = []
    length_ms = max(report.to_ms - report.from_ms, 1)
    hours = store.rows_by_hour(report.from_ms, report.to_ms)
    for begin_ms, end_ms in spans(hours, report.from_ms, report.to_ms, _ROWS_AT_ONCE):
        counts, found = store.compare(begin_ms, end_ms)
        report.counts.add(counts)
        for batch in found:
            if len(wrong) < report.limit:
                wrong.append(batch)
            if batch.surplus_places:
                _find_surplus(store, report, batch, begin_ms, end_ms)
            if batch.doubled:
                report.find(
                    Finding(Kind.DOUBLED, batch.batch_id, count=batch.doubled, note="arrivals stored more than once")
                )
        told("comparing batches with arrivals", (end_ms - report.from_ms) / length_ms)
    return wrong


def _find_surplus(store: AuditStore, report: Report, batch: WrongBatch, begin_ms: int, end_ms: int) -> None:
    note = "its batch has fewer events" if batch.is_known else "nobody received such a batch"
    named = store.mids_of(batch.batch_id, begin_ms, end_ms, batch.surplus_places)
    for index, mid, outcome in named:
        report.find(Finding(Kind.SURPLUS, batch.batch_id, index, mid, note=f"{outcome}; {note}"))
    if batch.surplus > len(batch.surplus_places):
        more = batch.surplus - len(batch.surplus_places)
        report.find(Finding(Kind.SURPLUS, batch.batch_id, count=more, note="further arrivals of this batch"))


def _find_doubled(store: AuditStore, report: Report, told: Told) -> None:
    """Find mids that are stored twice, whenever: hash by hash, so that memory stays bounded."""
    report.counts.doubled = 0  # counted by mid, which an arrival stored twice is too
    named = 0
    for hashes, share in store.doubled_hashes(report.from_ms, report.to_ms):
        mids = store.doubled_mids(hashes, report.from_ms, report.to_ms)
        eids = store.eids_of(mids) if mids and named < _EIDS_SHOWN else {}
        named += len(eids)
        for one in mids:
            report.counts.doubled += one.rows - 1
            note = "stored as " + ", ".join(f"{batch_id}/{index}" for batch_id, index in one.arrivals)
            report.find(Finding(Kind.DOUBLED, mid=one.mid, eid=eids.get(one.mid, ""), count=one.rows - 1, note=note))
        told("looking for mids stored twice", share)


async def _ask_kafka(
    settings: Settings, store: AuditStore, report: Report, wrong: list[WrongBatch], told: Told
) -> None:
    """Find the batches that are not in ``batches``, and name the events that are missing."""
    for collector, first, count in store.sequence_gaps(report.from_ms, report.to_ms, _GAPS_SHOWN):
        report.counts.gaps += count
        report.find(Finding(Kind.SEQUENCE_GAP, collector=collector, sequence=first, count=count))
    lossy = [batch for batch in wrong if batch.missing]
    places = store.places([batch.batch_id for batch in lossy], report.from_ms, report.to_ms)
    told("asking Kafka", 0)
    gaps = store.offset_gaps(report.from_ms, report.to_ms)
    earliest = next(gaps, None)
    if earliest is None and not lossy:
        return
    try:
        async with RawReader.open(settings) as reader:
            if earliest is not None:
                await _check_offsets(reader, store, report, chain([earliest], gaps))
            await _name_missing(reader, report, lossy, places)
    except KafkaAwayError as error:
        if earliest is not None:
            offsets = sum(gap.count for some in store.offset_gaps(report.from_ms, report.to_ms) for gap in some)
            report.unchecked.append(f"{offsets} offsets of telemetry.raw without a batch: Kafka is away ({error})")
        for batch in lossy:
            _find_missing(report, batch, places.get(batch.batch_id), [])
    told("asking Kafka", 1)


async def _check_offsets(reader: RawReader, store: AuditStore, report: Report, gaps: Iterator[list[Gap]]) -> None:
    """Look at the records that no row of ``batches`` names. One that holds a batch which is there lies in Kafka twice,
    and only its other place is named."""
    read = gone = 0
    # ClickHouse is asked in a thread, so that what Kafka sends meanwhile is taken in time.
    while (some := await asyncio.to_thread(next, gaps, None)) is not None:
        found: dict[Place, Receipt] = {}
        async with aclosing(reader.receipts(some)) as records:
            async for gap, receipt in records:
                if receipt is None:
                    gone += gap.count
                elif read < _MAX_RECORDS_READ:
                    found[gap.start] = receipt
                    read += 1
                else:
                    report.unchecked.append(f"more than {_MAX_RECORDS_READ} records without a batch: the rest of them")
                    break
        known = await asyncio.to_thread(store.known, {one.batch_id: one.received_at_ms for one in found.values()})
        for place, receipt in found.items():
            if receipt.batch_id not in known:
                at = Finding(Kind.OFFSET_GAP, topic=place.topic, partition=place.partition, offset=place.offset)
                report.find(replace(at, batch_id=receipt.batch_id))
                report.counts.gaps += 1
        if report.unchecked:
            break
    if gone:
        report.notes.append(
            f"{gone} offsets of telemetry.raw without a batch: Kafka has deleted the records, which may have been"
            " second copies; that no batch is lost is said by the collectors' numbers"
        )


async def _name_missing(reader: RawReader, report: Report, lossy: list[WrongBatch], places: dict[str, Place]) -> None:
    by_place = {places[batch.batch_id]: batch for batch in lossy if batch.batch_id in places}
    async for place, raw in reader.read(by_place):
        batch = by_place[place]
        if raw is None or raw.batch_id != batch.batch_id:  # deleted, or the topic was made anew
            _find_missing(report, batch, place, [])
        else:
            _find_missing(report, batch, place, [raw.names(index) for index in batch.missing_places])


def _find_missing(report: Report, batch: WrongBatch, place: Place | None, names: list[tuple[str, str]]) -> None:
    at = place or Place("", -1, -1)
    whole = Finding(Kind.MISSING, batch.batch_id, topic=at.topic, partition=at.partition, offset=at.offset)
    if names:
        for index, (mid, eid) in zip(batch.missing_places, names, strict=True):
            report.find(replace(whole, event_index=index, mid=mid, eid=eid))
    else:
        for first, count in runs(batch.missing_places):
            report.find(replace(whole, event_index=first, count=count, note="Kafka does not have its record any more"))
    if batch.missing > len(batch.missing_places):
        more = batch.missing - len(batch.missing_places)
        report.find(replace(whole, count=more, note="further events of this batch"))
