"""Records of ``telemetry.raw`` and blocks of ``telemetry.valid`` of the measured mix, by ``validate``'s own code."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from bench.mix import batches
from midstream import topics
from midstream.events.judge import Judge
from midstream.events.schemas import load_schemas
from midstream.receipt import Receipt, encode_receipt
from midstream.settings import Settings
from processors.store.storer import StoreRecord
from processors.validate.round import Round
from processors.validate.seal import Sealed
from processors.validate.split import RawRecord


def open_judge(settings: Settings) -> Judge:
    """Return the judge that a worker with these settings has."""
    return Judge(load_schemas(settings.schemas), settings.max_event_bytes, settings.max_event_depth)


def raw_records(seed: int, events: int, batch_events: int) -> list[RawRecord]:
    """Return the batches of a mix as records of ``telemetry.raw``, received now."""
    now_ms = time.time_ns() // 1_000_000
    records = []
    for number, batch in enumerate(batches(seed, events, batch_events, now_ms)):
        receipt = Receipt(
            batch_id=f"{seed}-{number}",
            received_at_ms=now_ms,
            events=batch.events,
            sequence=number,
            collector="bench",
            bytes=len(batch.body),
        )
        header = (topics.RECEIPT_HEADER, encode_receipt(receipt))
        records.append(RawRecord(topics.RAW.name, 0, number, now_ms, batch.body, [header]))
    return records


def seal(settings: Settings, judge: Judge, records: Sequence[RawRecord], partitions: int) -> Iterator[Sealed]:
    """Yield what ``validate`` seals of these records when it has much to do: rounds as large as it takes."""
    step = settings.max_batches_in_flight
    for begin in range(0, len(records), step):
        round_ = Round(settings, judge, partitions, 0)
        for record in records[begin : begin + step]:
            yield from (block for block in round_.add(record) if block is not None)
        yield from round_.finish()


def store_records(sealed: Iterable[Sealed]) -> list[StoreRecord]:
    """Return the blocks of valid events among these as ``store`` gets them."""
    now_ms = time.time_ns() // 1_000_000
    valid = (block for block in sealed if block.topic == topics.VALID.name)
    return [StoreRecord(b.topic, b.partition, offset, now_ms, b.value) for offset, b in enumerate(valid)]
