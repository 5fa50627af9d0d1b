"""The audit against the real engine: what tests write straight into the tables, it finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from midstream.audit.findings import Report, parse_time
from midstream.audit.run import NothingCompleteError, audit
from midstream.audit.store import AuditStore, Gap, Place
from midstream.clickhouse.client import ClickHouse
from midstream.receipt import Receipt
from midstream.settings import Settings
from tests.contract.engine.conftest import free_port

AT = "2026-01-01 10:00:30"
COMPLETE = "2026-01-01 12:00:00"
NOWHERE: dict[str, Any] = {"kafka": f"127.0.0.1:{free_port()}", "kafka_timeout_ms": 300}


def batch(
    clickhouse: ClickHouse, number: int, events: int = 3, *, at: str = AT, collector: str = "c/0", source: str = "http"
) -> str:
    """Write a batch whose events are all stored; its number is its sequence and its offset."""
    batch_id = f"b{number}"
    clickhouse.command(
        "INSERT INTO batch_rows (batch_id, received_at, events, sequence, collector, topic, partition, offset, source, "
        f"appended_at) VALUES ('{batch_id}', '{at}', {events}, {number}, '{collector}', 'telemetry.raw', 0, {number}, "
        f"'{source}', '{at}')"
    )
    stored(clickhouse, batch_id, range(events), at)
    return batch_id


def stored(clickhouse: ClickHouse, batch_id: str, places: Sequence[int], at: str = AT, mid: str = "") -> None:
    clickhouse.command(
        "INSERT INTO learning_events (mid, mid_hash, eid, batch_id, event_index, received_at) "
        f"SELECT if('{mid}' = '', concat('{batch_id}-', toString(place)), '{mid}') AS mid, xxh3(mid), 'START', "
        f"'{batch_id}', place, '{at}' FROM (SELECT arrayJoin({list(places)}) AS place)"
    )


class Recorder(ClickHouse):
    """Keeps what is asked."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self.__dict__ = clickhouse.__dict__
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> Sequence[tuple[Any, ...]]:
        self.asked.append((sql, parameters or {}))
        return super().rows(sql, parameters)

    def named_rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        self.asked.append((sql, parameters or {}))
        return super().named_rows(sql, parameters)


@pytest.fixture
def sound(clickhouse: ClickHouse) -> ClickHouse:
    """Five batches that are through."""
    for number in range(5):
        batch(clickhouse, number)
    clickhouse.command(
        "INSERT INTO progress_rows (topic, partition, complete_offset, published_at, since) "
        f"VALUES ('telemetry.raw', 0, 5, '{COMPLETE}', '{AT}')"
    )
    clickhouse.command(f"INSERT INTO watermark_rows VALUES ('complete', '{COMPLETE}')")
    return clickhouse


def run(clickhouse: ClickHouse, begin: str | None = None, end: str | None = None) -> Report:
    times = (None if begin is None else parse_time(begin), None if end is None else parse_time(end))
    shares: list[float] = []
    found = asyncio.run(
        audit(Settings(**NOWHERE), AuditStore(clickhouse), *times, 1_000, lambda _, share: shares.append(share))
    )
    assert all(0 <= share <= 1 for share in shares)
    assert all(finding.line() for finding in found.findings)
    return found


def kinds(report: Report) -> list[str]:
    return [finding.kind.value for finding in report.findings]


def test_what_adds_up_is_proven_without_kafka(sound: ClickHouse) -> None:
    report = run(sound)
    assert report.proven, report.as_dict()
    counts = report.counts
    assert (counts.batches, counts.received, counts.stored) == (5, 15, 15)
    assert report.unchecked == report.notes == []


def test_every_outcome_counts_once(sound: ClickHouse) -> None:
    sound.command(
        "INSERT INTO batch_rows (batch_id, received_at, events, sequence, collector, source) "
        f"VALUES ('x', '{AT}', 10, 5, 'c/0', 'http'), ('y', '{AT}', 4, 6, 'c/0', 'http')"
    )
    stored(sound, "x", range(4))
    for table, places in (("duplicate_rows", [3, 4, 5]), ("reject_rows", [5, 6, 7, 8, 9])):
        sound.command(
            f"INSERT INTO {table} (mid, batch_id, event_index, received_at) "
            f"SELECT 'm', 'x', arrayJoin({places}), '{AT}'"
        )
    sound.command(
        "INSERT INTO reject_rows (batch_id, event_index, received_at, scope, code, events) "
        f"VALUES ('y', -1, '{AT}', 'batch', 'BATCH_UNREADABLE', 4), ('z', -1, '{AT}', 'batch', 'POISON', 0)"
    )
    report = run(sound)
    assert report.proven, report.as_dict()
    counts = report.counts
    assert (counts.received, counts.stored, counts.duplicate, counts.rejected) == (29, 19, 2, 8)


def test_an_event_that_was_dropped_is_named(sound: ClickHouse) -> None:
    sound.command("ALTER TABLE learning_events DELETE WHERE batch_id = 'b2' AND event_index = 1", {"mutations_sync": 2})
    report = run(sound)
    assert not report.proven
    assert (report.counts.missing, kinds(report)) == (1, ["missing"])
    (found,) = report.findings
    assert (found.batch_id, found.event_index, found.offset, found.mid) == ("b2", 1, 2, "")  # Kafka is away


def test_a_doubled_row_is_found(sound: ClickHouse) -> None:
    stored(sound, "b2", [1])
    report = run(sound)
    assert report.counts.doubled == 1
    assert {finding.mid for finding in report.findings} == {"", "b2-1"}
    assert set(kinds(report)) == {"doubled"}


def test_a_mid_that_is_stored_again_much_later_is_found(sound: ClickHouse) -> None:
    sound.command(
        "INSERT INTO operational_events (mid, mid_hash, batch_id, event_index, received_at) "
        "SELECT 'b2-1' AS mid, xxh3(mid), 'later', 0, '2026-03-01 00:00:00'"
    )
    report = run(sound)  # the other one lies far beyond the time that is audited
    assert (report.counts.doubled, kinds(report)) == (1, ["doubled"])
    assert "later/0" in report.findings[0].note
    assert "b2/1" in report.findings[0].note


def test_an_arrival_too_many_is_found(sound: ClickHouse) -> None:
    stored(sound, "b3", [3])
    stored(sound, "of-nobody", [0, 1])
    report = run(sound)
    assert report.counts.surplus == 3
    found = {(finding.batch_id, finding.event_index, finding.mid) for finding in report.findings}
    assert found == {("b3", 3, "b3-3"), ("of-nobody", 0, "of-nobody-0"), ("of-nobody", 1, "of-nobody-1")}


def test_a_loss_and_a_surplus_are_two(sound: ClickHouse) -> None:
    sound.command("ALTER TABLE learning_events DELETE WHERE batch_id = 'b2' AND event_index = 1", {"mutations_sync": 2})
    stored(sound, "b3", [3])
    counts = run(sound).counts
    assert (counts.missing, counts.surplus) == (1, 1)


def test_a_batch_without_a_row_leaves_a_gap_in_its_collectors_numbers(sound: ClickHouse) -> None:
    sound.command("ALTER TABLE batch_rows DELETE WHERE batch_id = 'b2'", {"mutations_sync": 2})
    report = run(sound)
    assert report.counts.gaps == 1
    assert report.counts.surplus == 3
    gap = next(finding for finding in report.findings if finding.kind.value == "sequence_gap")
    assert (gap.collector, gap.sequence, gap.count) == ("c/0", 2, 1)
    # Its offset is missing too, and what lies there only Kafka could tell.
    assert len(report.unchecked) == 1
    assert "1 offset" in report.unchecked[0]


def test_numbers_behind_the_last_that_came_over_http_may_be_missing(sound: ClickHouse) -> None:
    """A collector that lost Kafka numbered them, and they went into its spool."""
    batch(sound, 9, source="spool")
    batch(sound, 7, source="spool")
    report = run(sound)
    assert "sequence_gap" not in kinds(report)


def test_a_spool_numbers_without_a_gap(sound: ClickHouse) -> None:
    for number in (0, 1, 4):
        sound.command(
            "INSERT INTO batch_rows (batch_id, received_at, sequence, collector, source, partition, offset) "
            f"VALUES ('s{number}', '{AT}', {number}, 'life/spool', 'spool', 7, {number})"
        )
    report = run(sound)
    assert [(one.collector, one.sequence, one.count) for one in report.findings] == [("life/spool", 2, 2)]
    assert report.counts.gaps == 2


@pytest.mark.parametrize(("number", "source"), [(1, "spool"), (3, "http")])
def test_numbers_that_are_given_in_another_order_than_receipts_are_no_gap(
    sound: ClickHouse, number: int, source: str
) -> None:
    """The time ends between the receipts of two batches, of which the later one has the lower number."""
    collector = "life/spool" if source == "spool" else "c/9"
    for sequence in range(number + 3):
        at = {number: "10:00:32", number + 1: "10:00:31"}.get(sequence, "10:00:30")
        sound.command(
            "INSERT INTO batch_rows (batch_id, received_at, sequence, collector, source, partition, offset) "
            f"VALUES ('s{sequence}', '2026-01-01 {at}', {sequence}, '{collector}', '{source}', 7, {sequence})"
        )
    for end in ("2026-01-01T10:00:31.500", "2026-01-01T10:00:31", "2026-01-01T10:00:33"):
        assert run(sound, None, end).proven
    sound.command(f"ALTER TABLE batch_rows DELETE WHERE batch_id = 's{number}'", {"mutations_sync": 2})
    report = run(sound, None, "2026-01-01T10:00:31.500")
    assert [(one.collector, one.sequence, one.count) for one in report.findings] == [(collector, number, 1)]


def test_a_batch_that_lies_in_kafka_twice_leaves_no_gap_in_the_numbers(sound: ClickHouse) -> None:
    sound.command(
        "INSERT INTO batch_rows (batch_id, received_at, events, sequence, collector, topic, partition, offset, source, "
        f"appended_at) VALUES ('b1', '{AT}', 3, 1, 'c/0', 'telemetry.raw', 0, 4, 'spool', '{AT}')"
    )
    sound.command("OPTIMIZE TABLE batch_rows FINAL")
    report = run(sound)
    assert report.counts.gaps == 0
    assert report.findings == []
    assert "Kafka is away" in report.unchecked[0]  # offset 1 has no batch any more, and was a copy
    assert not report.proven


class CopiesReader:
    """Kafka, where every odd offset holds another copy of the batch before it, or of one that is nowhere."""

    def __init__(self, lost: int = -1) -> None:
        self._lost = lost

    @asynccontextmanager
    async def open(self, _: Settings) -> AsyncIterator[CopiesReader]:
        yield self

    async def receipts(self, gaps: Sequence[Gap]) -> AsyncGenerator[tuple[Gap, Receipt | None], None]:
        for gap in gaps:
            assert gap.count == 1
            offset = gap.start.offset
            batch_id = "lost" if offset == self._lost else f"a-long-name-of-a-batch-{offset // 2}"
            at_ms = parse_time("2026-01-01 11:00")
            yield gap, Receipt(batch_id=batch_id, received_at_ms=at_ms, events=0, sequence=0, collector="", bytes=0)

    async def read(self, places: Collection[Place]) -> AsyncIterator[tuple[Place, None]]:
        for place in places:
            yield place, None


def test_many_copies_in_kafka_are_no_fault(sound: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = 12_000
    sound.command(
        "INSERT INTO batch_rows (batch_id, received_at, topic, partition, offset, sequence, collector, source, "
        "appended_at) SELECT concat('a-long-name-of-a-batch-', toString(number)), '2026-01-01 11:00:00', "
        f"'telemetry.raw', 9, number * 2, number, 'c/9', 'http', '{AT}' FROM numbers({copies + 1})"
    )
    sound.command(
        "INSERT INTO progress_rows (topic, partition, complete_offset, published_at, since) "
        f"VALUES ('telemetry.raw', 9, {copies * 3}, '{COMPLETE}', '{AT}')"
    )
    monkeypatch.setattr("midstream.audit.run.RawReader", CopiesReader())
    recorder = Recorder(sound)
    report = run(recorder)
    assert report.proven, report.as_dict()
    assert all(len(str(parameters)) < 100_000 for _, parameters in recorder.asked)  # a server takes 128 KiB in one
    monkeypatch.setattr("midstream.audit.run.RawReader", CopiesReader(lost=21_001))
    (found,) = run(sound).findings
    assert (found.kind, found.batch_id, found.partition, found.offset) == ("offset_gap", "lost", 9, 21_001)
    monkeypatch.setattr("midstream.audit.run._MAX_RECORDS_READ", 11_999)
    assert "11999" in run(sound).unchecked[0]


def test_many_batches_are_asked_for_in_portions(sound: ClickHouse) -> None:
    recorder = Recorder(sound)
    asked = [*(f"a-name-that-is-as-long-as-a-uuid-{number}" for number in range(5_000)), "b1", "b3"]
    begin, end = parse_time(AT), parse_time(COMPLETE)
    assert {one: place.offset for one, place in AuditStore(recorder).places(asked, begin, end).items()} == {
        "b1": 1,
        "b3": 3,
    }
    # A copy may have another time of receipt.
    assert AuditStore(recorder).known(dict.fromkeys(asked, begin) | {"b3": end}) == {"b1", "b3"}
    assert all(len(str(parameters)) < 100_000 for _, parameters in recorder.asked)


def test_what_an_older_generation_lacks_is_not_asked_for(sound: ClickHouse) -> None:
    batch(sound, 90, at="2026-01-01 09:00:00", collector="c/1", source="spool")
    assert run(sound).unchecked == []


def test_time_limits(sound: ClickHouse) -> None:
    batch(sound, 5, at="2026-01-01 11:30:00")
    batch(sound, 6, 7, at="2026-01-01 12:30:00")
    sound.command(
        "INSERT INTO progress_rows (topic, partition, complete_offset, published_at, since) "
        f"VALUES ('telemetry.raw', 0, 6, '2026-01-01 12:00:01', '{AT}')"
    )
    assert run(sound).counts.batches == 6
    assert run(sound, "2026-01-01T11:00", "2026-01-01T12:00").counts.batches == 1
    assert run(sound, None, "2026-01-01T11:00").counts.batches == 5
    later = run(sound, None, "2026-02-01")
    assert (later.counts.batches, later.counts.in_flight) == (6, 7)
    assert later.proven, later.as_dict()
    assert any("complete_until" in note for note in later.notes)


def test_nothing_is_proven_before_anything_is_complete(clickhouse: ClickHouse) -> None:
    with pytest.raises(NothingCompleteError):
        run(clickhouse)


def test_nothing_is_proven_of_what_may_all_be_in_flight(sound: ClickHouse) -> None:
    for begin, end in ((COMPLETE, None), ("2026-01-02", None), ("2026-01-02", "2026-01-03")):
        with pytest.raises(NothingCompleteError, match=r"2026-01-01T12:00:00\.000Z"):
            run(sound, begin, end)
    sound.command("ALTER TABLE batch_rows DELETE WHERE 1", {"mutations_sync": 2})
    sound.command("ALTER TABLE learning_events DELETE WHERE 1", {"mutations_sync": 2})
    empty = run(sound)
    assert empty.proven
    assert empty.notes == ["no batch was received in this time"]
    batch(sound, 1, at="2026-01-01 12:00:01", source="spool")
    for start in (None, "2026-01-01"):
        with pytest.raises(NothingCompleteError, match=r"2026-01-01T12:00:01\.000Z"):
            run(sound, start)


MANY = 300_000


def test_doubled_mids_are_sought_through_the_projection(sound: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole audit of much, and a short one: the first reads every hash once, by ranges; the second, few of them."""
    for module in ("run", "store"):
        monkeypatch.setattr(f"midstream.audit.{module}._ROWS_A_BUCKET", 40_000, raising=False)
    sound.command(
        "INSERT INTO learning_events (mid, mid_hash, eid, batch_id, event_index, received_at) "
        "SELECT concat('m', toString(number)) AS mid, xxh3(mid), 'LOG', 'many', number, "
        f"toDateTime64('2026-01-01 10:30:00', 3, 'UTC') FROM numbers({MANY})"
    )
    sound.command(
        "INSERT INTO batch_rows (batch_id, received_at, events, source) "
        f"VALUES ('many', '2026-01-01 10:30:00', {MANY}, 'import')"
    )

    def looked_at(begin: str | None, end: str | None) -> tuple[Report, list[int]]:
        recorder = Recorder(sound)
        report = run(recorder, begin, end)
        asked = [(sql, parameters) for sql, parameters in recorder.asked if "mid_hash" in sql]
        return report, [
            sum(int(row[3]) for row in sound.rows(f"EXPLAIN ESTIMATE {sql}", parameters)) for sql, parameters in asked
        ]

    whole, rows_read = looked_at(None, None)
    assert whole.counts.doubled == 0
    assert sum(rows_read) < 1.6 * MANY
    short, rows_read = looked_at("2026-01-01 10:00", "2026-01-01 10:30:00")
    assert short.proven, short.as_dict()
    assert 0 < sum(rows_read) < MANY / 1.2
    stored(sound, "later", [0, 1], "2026-01-01 11:00", "b2-1")
    for begin, end in (("2026-01-01 10:00", "2026-01-01 10:30:00"), ("2026-01-01 10:00", None)):
        doubled = [one for one in run(sound, begin, end).findings if one.mid]
        assert [(one.mid, one.eid, one.count) for one in doubled if one.kind == "doubled"] == [("b2-1", "START", 2)]


def test_time_before_the_oldest_row_costs_nothing(sound: ClickHouse) -> None:
    stored(sound, "of-nobody", [0], "2026-01-01 09:30:00")
    recorder = Recorder(sound)
    report = run(recorder, "2000-01-01")
    assert len(recorder.asked) < 25
    assert [(one.batch_id, one.event_index) for one in report.findings] == [("of-nobody", 0)]


def test_what_retention_deleted_is_not_audited(sound: ClickHouse) -> None:
    sound.command("INSERT INTO retention_rows VALUES ('operational_events', 30, 0, now64(3))")
    batch(sound, 5, at="2025-11-01 00:00:00", collector="c/2", source="spool")
    sound.command("ALTER TABLE learning_events DELETE WHERE batch_id = 'b5'", {"mutations_sync": 2})
    report = run(sound)
    assert report.proven, report.as_dict()
    assert report.counts.batches == 5
    assert "retention" in report.notes[0]
    with pytest.raises(NothingCompleteError, match="retention"):
        run(sound, None, "2025-11-02")
