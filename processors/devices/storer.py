"""Storing reports: the one place where the steps of ``devices`` meet ClickHouse. Runs in a thread; knows nothing of
Kafka."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from midstream import topics
from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.devices.record import RecordError
from midstream.devices.report import Report
from midstream.logs import get_logger
from midstream.metrics import (
    AHEAD_REPORTS,
    INSERT_RETRIES,
    INSERT_SECONDS,
    POISON_RECORDS,
    REPORT_VISIBLE_SECONDS,
    STORED_REPORTS,
)
from processors.attempts import Attempts
from processors.devices.rows import AHEAD_TABLE, DEVICE_TABLE, ahead_rows, device_rows, read_record, row_count
from processors.lease import Lease
from processors.store import verdicts
from processors.store.storer import StoreRecord, now_ms
from processors.store.units import InsertUnit

log = get_logger(__name__)

MAX_ROWS = 100_000
"""Rows that go to ClickHouse at once, but for those of one report at least."""


class _Read(NamedTuple):
    record: StoreRecord
    report: Report


class DeviceStorer:
    """Stores reports. When a call returns, all that it was given is in ClickHouse."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        lease: Lease,
        insert_tries: int,
        *,
        attempts: Attempts | None = None,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._clickhouse = clickhouse
        self._lease = lease
        self._insert_tries = insert_tries
        self._clock_ms = clock_ms
        self.tries = (attempts or Attempts.in_memory()).lane(topics.DEVICE.name)

    def store(self, records: Sequence[StoreRecord]) -> None:
        """Store records of ``device.telemetry``; those that cannot be stored go to ``rejects``, whole.

        Raises:
            ClickHouseError: the environment does not let it; nothing may be acknowledged.
            LeaseLostError: this worker stood still too long.
        """
        for part in self.tries.parts(records):
            self._store_part(part)

    def _store_part(self, records: Sequence[StoreRecord]) -> None:
        read: list[_Read] = []
        rejects: list[dict[str, Any]] = []
        rows = 0
        for record in records:
            trial = self.tries.begin(record)
            if trial is not None and trial.is_whole:
                rejects.append(self._park(record, trial.message))
                continue
            try:
                report = read_record(record.value, record.append_time_ms)
            except RecordError as error:
                rejects.append(self._park(record, str(error)))
                continue
            if read and rows + row_count(report) > MAX_ROWS:
                self.tries.joint()
                rejects += self._insert_reports(read)
                read, rows = [], 0
            read.append(_Read(record, report))
            rows += row_count(report)
        self.tries.joint()
        if read:
            rejects += self._insert_reports(read)
        if rejects:
            self._insert(verdicts.REJECT_TABLE, verdicts.to_arrow(rejects, verdicts.REJECTS))
        self.tries.passed()

    def _insert_reports(self, read: Sequence[_Read]) -> list[dict[str, Any]]:
        """Insert the rows of reports; return rows of ``rejects`` for those that ClickHouse refuses for their content.

        Between both inserts, as after a crash there, all is as it was before a report that is ahead came: what of it
        counts is known with the second.
        """
        reports = [one.report for one in read]
        try:
            self._insert(DEVICE_TABLE, device_rows(reports, self._clock_ms()))
            ahead = ahead_rows(reports)
            if ahead.num_rows:
                self._insert(AHEAD_TABLE, ahead)
        except ClickHouseError as error:
            if not error.by_data:
                raise
            if len(read) == 1:
                return [self._park(read[0].record, str(error))]
            middle = len(read) // 2
            return self._insert_reports(read[:middle]) + self._insert_reports(read[middle:])
        AHEAD_REPORTS.inc(ahead.num_rows)
        STORED_REPORTS.inc(len(reports))
        oldest_ms = min(report.received_at_us for report in reports) / 1000
        REPORT_VISIBLE_SECONDS.observe((self._clock_ms() - oldest_ms) / 1000)
        return []

    def _park(self, record: StoreRecord, reason: str) -> dict[str, Any]:
        log.error("devices.record_parked", partition=record.partition, offset=record.offset, error=reason[:500])
        POISON_RECORDS.labels("devices").inc()
        return verdicts.poison_record(
            record.topic,
            record.partition,
            record.offset,
            record.append_time_ms,
            record.value,
            reason,
            self._clock_ms(),
        )

    def _insert(self, table: str, rows: pa.RecordBatch) -> None:
        def before_try(tries: int) -> None:
            self._lease.check()
            if tries:
                INSERT_RETRIES.labels(table).inc()
                log.warning("insert.retried", table=table, tries=tries)

        with INSERT_SECONDS.labels(table).time():
            self._clickhouse.insert_stream(
                table,
                rows.schema.names,
                InsertUnit(table, rows, "").body(),
                "",  # rows that are there twice count once
                tries=self._insert_tries,
                before_try=before_try,
            )
