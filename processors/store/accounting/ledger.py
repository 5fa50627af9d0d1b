"""What the accounting reads from ClickHouse and writes there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from aiokafka.structs import TopicPartition

from midstream.clickhouse.client import ClickHouse
from midstream.kafka.marks import Mark
from processors.lease import Lease
from processors.store.accounting.generations import Published
from processors.store.accounting.settled import MINUTE_S, Minute
from processors.store.units import InsertUnit, make_token
from processors.store.verdicts import to_arrow

_MS = pa.timestamp("ms", tz="UTC")
_PROGRESS: pa.Schema = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.uint32()),
        ("complete_offset", pa.uint64()),
        ("published_at", _MS),
        ("since", _MS),
    ]
)
_WATERMARKS: pa.Schema = pa.schema([("watermark", pa.string()), ("reached", _MS)])
_COLLECTORS: pa.Schema = pa.schema(
    [
        ("id", pa.string()),
        ("low", _MS),
        ("at", _MS),
        ("open", pa.bool_()),
        ("spooled_batches", pa.uint64()),
        ("spooled_bytes", pa.uint64()),
        ("oldest", _MS),
    ]
)
_LOSSES: pa.Schema = pa.schema([("minute", pa.timestamp("s", tz="UTC")), ("events", pa.uint64()), ("checked_at", _MS)])
_MAX_RECHECKED = 1_000

COMPLETE = "complete"
SETTLED = "settled"


class Ledger:
    """The tables of the accounting. Blocking; every call raises ClickHouseError when ClickHouse does not do it."""

    def __init__(self, clickhouse: ClickHouse, lease: Lease, insert_tries: int) -> None:
        self._clickhouse = clickhouse
        self._lease = lease
        self._insert_tries = insert_tries

    def progress(self) -> dict[TopicPartition, Published]:
        """Return what was published last of each partition."""
        rows = self._clickhouse.rows(
            "SELECT topic, partition, complete_offset, toUnixTimestamp64Milli(since), "
            "toUnixTimestamp64Milli(published_at) FROM progress"
        )
        return {
            TopicPartition(topic, int(partition)): Published(int(complete), int(since), int(published))
            for topic, partition, complete, since, published in rows
        }

    def watermark(self, name: str) -> int:
        """Return a watermark, epoch milliseconds; 0: not reached yet."""
        ((reached,),) = self._clickhouse.rows(
            "SELECT toUnixTimestamp64Milli(max(reached)) FROM watermark_rows WHERE watermark = {name:String}",
            {"name": name},
        )
        return int(reached)

    def oldest_batch_ms(self) -> int:
        """Return the receipt of the oldest batch, epoch milliseconds; 0: there is none."""
        ((oldest,),) = self._clickhouse.rows("SELECT toUnixTimestamp64Milli(min(received_at)) FROM batch_rows")
        return int(oldest)

    def minutes(self, since_s: int, until_s: int) -> list[Minute]:
        """Return the minutes of a time that the accounting knows of, in order."""
        rows = self._clickhouse.rows(
            "SELECT toUnixTimestamp(minute) AS at, sum(in_flight), sum(unaccounted) + sum(surplus) FROM accounting "
            "WHERE minute >= toDateTime({since:UInt32}, 'UTC') AND minute < toDateTime({until:UInt32}, 'UTC') "
            "GROUP BY at ORDER BY at",
            {"since": since_s, "until": until_s},
        )
        return [Minute(int(at), int(in_flight), int(wrong)) for at, in_flight, wrong in rows]

    def lost(self) -> int:
        """Return how many events of settled minutes are missing or too many."""
        ((events,),) = self._clickhouse.rows("SELECT sum(events) FROM losses")
        return int(events)

    def recheck_losses(self) -> None:
        """Look again at minutes with losses, those first that were not looked at for long: some may be mended."""
        known = self._clickhouse.rows(
            "SELECT toUnixTimestamp(minute), events FROM losses ORDER BY checked_at LIMIT {limit:UInt32}",
            {"limit": _MAX_RECHECKED},
        )
        checked = []
        for at, _ in known:
            wrong = sum(minute.wrong for minute in self.minutes(int(at), int(at) + MINUTE_S))
            checked.append(Minute(int(at), 0, wrong))
        self.write_losses(checked)

    def write_losses(self, minutes: Sequence[Minute]) -> None:
        """Keep what is wrong in settled minutes."""
        now = _now_ms()
        self._insert(
            "loss_rows",
            _LOSSES,
            [{"minute": minute.at_s, "events": minute.wrong, "checked_at": now} for minute in minutes],
        )

    def write_progress(self, complete: dict[TopicPartition, Published]) -> None:
        """Publish progress; its ``published_ms`` is what is written."""
        self._insert(
            "progress_rows",
            _PROGRESS,
            [
                {
                    "topic": tp.topic,
                    "partition": tp.partition,
                    "complete_offset": one.complete,
                    "published_at": one.published_ms,
                    "since": one.since_ms,
                }
                for tp, one in sorted(complete.items())
            ],
        )

    def write_watermark(self, name: str, reached_ms: int) -> None:
        """Publish a watermark; one that lies behind what is there changes nothing."""
        self._insert("watermark_rows", _WATERMARKS, [{"watermark": name, "reached": reached_ms}])

    def write_marks(self, marks: Iterable[Mark]) -> None:
        """Show the collectors' marks."""
        self._insert(
            "collector_rows",
            _COLLECTORS,
            [
                {
                    "id": mark.id,
                    "low": mark.low_ms,
                    "at": mark.at_ms,
                    "open": mark.open,
                    "spooled_batches": mark.spooled_batches,
                    "spooled_bytes": mark.spooled_bytes,
                    "oldest": mark.oldest_ms,
                }
                for mark in marks
            ],
        )

    def _insert(self, table: str, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        body = InsertUnit(table, to_arrow(rows, schema), "").body()
        self._clickhouse.insert_stream(
            table,
            schema.names,
            body,
            make_token(table, *body),
            tries=self._insert_tries,
            before_try=lambda _: self._lease.check(),
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
