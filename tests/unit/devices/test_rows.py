"""What a report becomes in ``device_rows`` and ``device_ahead_rows``."""

from __future__ import annotations

import msgspec
import pytest

from midstream.devices.record import RecordError, encode_report
from midstream.devices.report import Report, read_report
from midstream.devices.state import AHEAD_US
from processors.devices.rows import MESSAGE, OVERRIDE, VALUE, ahead_rows, device_rows, read_record, row_count

NOON_US = 1_769_860_800_000_000  # 2026-01-31T12:00:00Z
STORED_MS = 1_769_860_800_123
DAY_MS = 24 * 3600 * 1_000


def read(received_at_us: int = NOON_US, device: str = "d", **sent: object) -> Report:
    return read_report(device, {"status": "online", **sent}, received_at_us, "r1")


def plain(reports: list[Report]) -> list[tuple[object, ...]]:
    rows = device_rows(reports, STORED_MS).select(["device_id", "kind", "key", "value", "receipt_id"]).to_pylist()
    return [tuple(row.values()) for row in rows]


def test_each_key_is_a_row_and_so_is_what_else_the_report_says() -> None:
    whole = read(
        timestamp="2026-01-31T12:00:00.5Z", telemetries={"t": 21.5, "": None}, override=True, message='it\'s "hot"'
    )
    assert plain([whole, read(device="e")]) == [
        ("d", VALUE, "t", b"21.5", ""),
        ("d", VALUE, "", b"null", ""),
        ("d", VALUE, "status", b'"online"', ""),
        ("d", OVERRIDE, "", b"", ""),
        ("d", MESSAGE, "", b'it\'s "hot"', ""),
        ("e", VALUE, "status", b'"online"', "r1"),  # without a time of its own it is another at each receipt
    ]
    assert [row_count(whole), row_count(read())] == [5, 1]


def test_times_and_digest() -> None:
    own = read(timestamp="2026-01-31T12:00:00.500001Z")
    without = read(received_at_us=NOON_US + 7)
    rows = device_rows([own, without], STORED_MS)
    assert rows.column("at").cast("int64").to_pylist() == [NOON_US + 500_001, NOON_US + 7]
    assert rows.column("own_at_us").to_pylist() == [NOON_US + 500_001, None]
    assert rows.column("received_at").cast("int64").to_pylist() == [NOON_US, NOON_US + 7]
    assert rows.column("digest").to_pylist() == [own.digest, without.digest]


def test_a_clock_ahead_is_cut_short_and_noted() -> None:
    just = read(timestamp="2026-01-31T12:05:00Z")
    ahead = read(timestamp="2026-01-31T12:05:00.000001Z", telemetries={"a": 1})
    far, old = read(timestamp="9999-12-31T23:59:59Z"), read(timestamp="0001-01-01T00:00:00Z")
    rows = device_rows([just, ahead, far, old], STORED_MS)
    capped_us = NOON_US + AHEAD_US
    assert rows.column("at").cast("int64").to_pylist() == [capped_us, capped_us, capped_us, capped_us, 0]
    assert ahead_rows([just, ahead, far, old, read()]).to_pylist() == [
        row | {"device_id": "d"}
        for row in ahead_rows([ahead, far]).select(["device_id", "digest", "first_at"]).to_pylist()
    ]
    assert ahead_rows([just, ahead, far, old]).column("digest").to_pylist() == [ahead.digest, far.digest]
    assert ahead_rows([ahead]).column("first_at").cast("int64").to_pylist() == [capped_us]
    assert ahead_rows([just, old]).num_rows == 0


def test_a_record_is_read_as_it_was_received() -> None:
    report = read(telemetries={"a": 1})
    assert read_record(encode_report(report), NOON_US // 1_000) == report
    assert read_record(encode_report(report), NOON_US // 1_000 + 300 * DAY_MS) == report  # it lay in a spool


@pytest.mark.parametrize("days", [-2, 366])
def test_a_receipt_that_cannot_be_is_that_of_kafka(days: int) -> None:
    appended_ms = NOON_US // 1_000 + days * DAY_MS
    assert read_record(encode_report(read()), appended_ms).received_at_us == appended_ms * 1_000


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": b"short"},
        {"values": {"a": 1}},
        {"values": {"status": "error"}},
        {"timestamp_us": 253_402_300_800_000_000},
        {"timestamp_us": -(2**63)},
    ],
)
def test_what_no_collector_writes_is_refused(changes: dict[str, object]) -> None:
    report = msgspec.structs.replace(read(), **changes)
    with pytest.raises(RecordError):
        read_record(encode_report(report), NOON_US // 1_000)


def test_rows_say_when_they_were_written() -> None:
    rows = device_rows([read(override=True), read(device="e")], STORED_MS)
    assert {int(moment.timestamp() * 1000) for moment in rows.column("stored_at").to_pylist()} == {STORED_MS}
