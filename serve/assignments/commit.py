"""Writes of records made durable together: the one place where the registry and ClickHouse meet. Blocks.

Delivery contract: when :meth:`Committer.commit` returns, each write is a row in ClickHouse and its record exists. A
write whose call failed may have become a row all the same; sent again it is another version of the same record, with
the same content.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from midstream.assignments.record import Version
from midstream.assignments.rows import TABLE, PlacedWrite, RecordKey, Write, rows_of
from midstream.assignments.stored import RecordReader
from midstream.metrics import INSERT_RETRIES, INSERT_SECONDS
from midstream.registry.academies.records import Records, Reserved, Wanted
from serve.assignments.announce import Announcer
from serve.finder import LazyClient

_TRIES = 3
_READS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a write."""

    placed: PlacedWrite
    created: bool
    """The record did not exist before."""
    versions: Sequence[Version]
    """The writes that the record is made of now."""


class Committer:
    """Threads may share it."""

    def __init__(self, records: Records, clickhouse: LazyClient, reader: RecordReader, announcer: Announcer) -> None:
        self._records = records
        self._clickhouse = clickhouse
        self._reader = reader
        self._announcer = announcer
        self._threads = ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="assignment-others")

    def close(self) -> None:
        """End the threads; calls under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """Store writes, in their order where they are of one record, and read the records back.

        Raises:
            RegistryUnavailable, ClickHouseError: nothing is known of the outcome.
        """
        with self._announcer.insert() as insert:
            placed, reserved = self._place(writes)
            batch = rows_of(placed, insert.writer, insert.batch)
            # What others wrote before is read while these are stored, which are known anyway.
            reading = self._threads.submit(self._reader.read, list(reserved))
            insert.begin()
            self._insert(batch)
            unconfirmed = {one.id for one in reserved.values() if not one.confirmed}
            new = self._records.confirm(unconfirmed) if unconfirmed else set()
            insert.stored(placed)
        versions = reading.result()
        for one in placed:
            versions.setdefault(one.write.key, []).append(one.as_version())
        # Of several writes that made a record the first did.
        return [
            Outcome(
                one,
                one.id in new and one.version == reserved[one.write.key].first_version,
                versions[one.write.key],
            )
            for one in placed
        ]

    def _place(self, writes: Sequence[Write]) -> tuple[list[PlacedWrite], dict[RecordKey, Reserved]]:
        now = datetime.now(UTC)
        wanted = [Wanted(*key, writes=number, at=now) for key, number in Counter(one.key for one in writes).items()]
        reserved = {
            RecordKey(want.academy_id, want.asset_slug, want.user_id): got
            for want, got in zip(wanted, self._records.reserve(wanted), strict=True)
        }
        used: Counter[RecordKey] = Counter()
        placed: list[PlacedWrite] = []
        for write in writes:
            got = reserved[write.key]
            placed.append(PlacedWrite(write, got.id, got.first_version + used[write.key], now, got.created_at))
            used[write.key] += 1
        return placed, reserved

    def _insert(self, rows: pa.RecordBatch) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_batch(rows)
        body = sink.getvalue().to_pybytes()
        client = self._clickhouse.connected()
        began = time.perf_counter()

        def before_try(made: int) -> None:
            if made:
                INSERT_RETRIES.labels(TABLE).inc()

        # Without a token: a row that is there twice is one write, see schemas/clickhouse/0009_assignments.sql.
        client.insert_stream(TABLE, rows.schema.names, body, "", tries=_TRIES, before_try=before_try)
        INSERT_SECONDS.labels(TABLE).observe(time.perf_counter() - began)
