"""The ``devices`` worker against a ClickHouse in memory: what is inserted, what is parked, what ends the worker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

from midstream import topics
from midstream.clickhouse.client import ClickHouseError
from midstream.devices.record import encode_report
from midstream.devices.report import read_report
from processors.attempts import Attempts
from processors.devices import storer as storer_module
from processors.devices.rows import AHEAD_TABLE, DEVICE_TABLE
from processors.devices.storer import DeviceStorer
from processors.lease import Lease, LeaseLostError
from processors.store.storer import StoreRecord

NOON_US = 1_769_860_800_000_000
TRIES = 2
AWAY, BAD_DATA = 210, 53


class Tables:
    """Takes inserts; one with a value that holds ``refused`` is refused for its data."""

    def __init__(self) -> None:
        self.inserts: list[tuple[str, list[dict[str, Any]]]] = []
        self.is_away = False
        self.tokens: set[str] = set()

    def insert_stream(
        self,
        table: str,
        columns: Sequence[str],
        body: Sequence[bytes | memoryview],
        token: str,
        *,
        tries: int,
        before_try: Callable[..., None],
    ) -> None:
        before_try(0)
        if self.is_away:
            raise ClickHouseError("away", AWAY)
        rows = pa.ipc.open_stream(b"".join(body)).read_all().to_pylist()
        assert list(rows[0]) == list(columns)
        if any(b"refused" in row.get("value", b"") for row in rows):
            raise ClickHouseError("no such value", BAD_DATA)
        self.tokens.add(token)
        self.inserts.append((table, rows))

    def keys(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for table, rows in self.inserts:
            found[table] += [row["key"] for row in rows if row.get("key") not in (None, "status")]
        return dict(found)


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def storer(tables: Tables) -> DeviceStorer:
    return DeviceStorer(
        tables,  # type: ignore[arg-type]
        Lease(10_000),
        1,
        attempts=Attempts.in_memory(TRIES),
        clock_ms=lambda: NOON_US // 1_000,
    )


def record(offset: int, telemetries: dict[str, Any], **sent: Any) -> StoreRecord:
    report = read_report("d", {"status": "online", "telemetries": telemetries, **sent}, NOON_US, f"r{offset}")
    return StoreRecord(topics.DEVICE.name, 0, offset, NOON_US // 1_000, encode_report(report))


def rejects(tables: Tables) -> list[dict[str, Any]]:
    return [row for table, rows in tables.inserts if table == "reject_rows" for row in rows]


def test_records_that_come_together_are_one_insert_without_a_token(storer: DeviceStorer, tables: Tables) -> None:
    storer.store([record(n, {f"k{n}": n}) for n in range(5)])
    assert [table for table, _ in tables.inserts] == [DEVICE_TABLE]
    assert tables.keys() == {DEVICE_TABLE: [f"k{n}" for n in range(5)]}
    assert tables.tokens == {""}
    storer.store([])
    assert len(tables.inserts) == 1


def test_what_is_ahead_is_noted_after_its_rows(storer: DeviceStorer, tables: Tables) -> None:
    storer.store([record(0, {"a": 1}, timestamp="2027-01-01T00:00:00Z"), record(1, {"b": 1})])
    assert [(table, len(rows)) for table, rows in tables.inserts] == [(DEVICE_TABLE, 4), (AHEAD_TABLE, 1)]


def test_large_reports_are_several_inserts(
    storer: DeviceStorer, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storer_module, "MAX_ROWS", 10)
    storer.store([record(n, {f"k{n}.{m}": m for m in range(20 if n == 2 else 3)}) for n in range(5)])
    assert [len(rows) for _, rows in tables.inserts] == [8, 21, 8]


def test_a_report_that_clickhouse_refuses_is_parked_alone(storer: DeviceStorer, tables: Tables) -> None:
    records = [record(n, {f"k{n}": "refused" if n == 3 else n}) for n in range(7)]
    storer.store(records)
    assert sorted(tables.keys()[DEVICE_TABLE]) == ["k0", "k1", "k2", "k4", "k5", "k6"]
    [parked] = rejects(tables)
    assert (parked["code"], parked["scope"], parked["raw"]) == ("POISON", "batch", records[3].value)
    assert parked["message"] == "device.telemetry/0/3: no such value"


def test_what_is_no_report_is_parked(storer: DeviceStorer, tables: Tables) -> None:
    values = [b"", b"{}", b"\x00\xff", b"null"]
    bad = [StoreRecord(topics.DEVICE.name, 1, n, NOON_US // 1_000, value) for n, value in enumerate(values)]
    storer.store([*bad, record(9, {"a": 1})])
    assert tables.keys()[DEVICE_TABLE] == ["a"]
    assert [row["raw"] for row in rejects(tables)] == values
    assert {row["events"] for row in rejects(tables)} == {0}


def test_without_clickhouse_the_worker_ends_and_nothing_is_held_against_a_record(
    storer: DeviceStorer, tables: Tables
) -> None:
    tables.is_away = True
    for _ in range(TRIES + 1):
        next_life(storer, [record(0, {"a": 1})], ClickHouseError)
    tables.is_away = False
    storer.store([record(0, {"a": 1})])
    assert tables.keys() == {DEVICE_TABLE: ["a"]}


def test_a_worker_that_stood_still_inserts_nothing(tables: Tables) -> None:
    now = 0.0
    lease = Lease(10_000, lambda: now)
    storer = DeviceStorer(tables, lease, 1)  # type: ignore[arg-type]
    now = 11.0
    with pytest.raises(LeaseLostError):
        storer.store([record(0, {"a": 1})])
    assert tables.inserts == []


def next_life(storer: DeviceStorer, records: list[StoreRecord], error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        storer.store(records)
    begin_anew(storer, raised.value)


def begin_anew(storer: DeviceStorer, error: Exception) -> None:
    """Let the worker end and come back."""
    storer.tries.failed(error)
    storer.tries._begun.clear()
    storer.tries._attempts.closed = False
    storer.tries._attempts.look()


@pytest.mark.parametrize("step", ["read_record", "device_rows"])
def test_a_record_at_which_the_worker_fails_is_parked_and_its_neighbours_are_stored(
    storer: DeviceStorer, tables: Tables, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    original = getattr(storer_module, step)

    def fail(given: Any, *rest: Any) -> Any:
        if b"bad" in given if isinstance(given, bytes) else any("bad" in report.values for report in given):
            raise ArithmeticError("no such number")
        return original(given, *rest)

    monkeypatch.setattr(storer_module, step, fail)
    records = [record(n, {"bad" if n == 20 else f"k{n}": n}) for n in range(40)]
    for _ in range(10):
        try:
            storer.store(records)
            break
        except ArithmeticError as error:
            begin_anew(storer, error)
    assert set(tables.keys()[DEVICE_TABLE]) == {f"k{n}" for n in range(40) if n != 20}
    [parked] = rejects(tables)
    assert (parked["raw"], parked["message"]) == (
        records[20].value,
        "device.telemetry/0/20: ArithmeticError: no such number",
    )
