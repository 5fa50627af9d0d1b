from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from midstream.devices.report import (
    MAX_KEYS,
    MAX_MESSAGE_BYTES,
    MAX_STRING_BYTES,
    Report,
    ReportError,
    digest_of,
    read_object,
    read_report,
    read_timestamp,
)

NOON_US = 1_769_860_800_000_000  # 2026-01-31T12:00:00Z


def read(**sent: Any) -> Report:
    return read_report("d", {"status": "online", **sent}, NOON_US, "r1")


def test_a_report_with_everything() -> None:
    report = read(
        timestamp="2026-01-31T12:00:00Z",
        telemetries={"temp": 21.5, "on": True, "count": 3, "name": "Hall", "gone": None},
        message="all well",
        override=True,
    )
    assert report.values == {"temp": 21.5, "on": True, "count": 3, "name": "Hall", "gone": None, "status": "online"}
    assert (report.timestamp_us, report.message, report.override) == (NOON_US, "all well", True)
    assert (report.device_id, report.received_at_us, report.receipt_id) == ("d", NOON_US, "r1")


def test_a_report_with_nothing_but_its_status() -> None:
    report = read()
    assert report.values == {"status": "online"}
    assert (report.timestamp_us, report.message, report.override) == (None, "", False)


def test_the_status_of_the_report_stands_whatever_its_telemetries_say() -> None:
    assert read(status="error", telemetries={"status": "fine"}).values == {"status": "error"}


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "a b", "ключ", "🌡", "\u0000", "k" * 1_000, "$", "__proto__"])
def test_any_key_is_one(key: str) -> None:
    assert read(telemetries={key: 1}).values[key] == 1


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"status": "away"}, "status must be online, offline or error"),
        ({"status": None}, "status must be online, offline or error"),
        ({"status": ["online"]}, "status must be online, offline or error"),
        ({"telemetries": {"a": {"b": 1}}}, "Common telemetries.a must be string, number or boolean"),
        ({"telemetries": {"a": [1]}}, "Common telemetries.a must be string, number or boolean"),
        ({"telemetries": [1]}, "telemetries must be an object"),
        (
            {"telemetries": {"a": "x" * (MAX_STRING_BYTES + 1)}},
            "Common telemetries.a must not be longer than 1000 bytes",
        ),
        ({"telemetries": {"a": "ж" * 501}}, "Common telemetries.a must not be longer than 1000 bytes"),
        ({"telemetries": {"k" * 1_001: 1}}, "A key of telemetries must not be longer than 1000 bytes"),
        ({"telemetries": {f"k{n}": n for n in range(MAX_KEYS + 1)}}, "telemetries must not have more than 10000 keys"),
        ({"override": "yes"}, "override must be true or false"),
        ({"override": 1}, "override must be true or false"),
        ({"message": 5}, "message must be a string"),
        ({"message": "x" * (MAX_MESSAGE_BYTES + 1)}, "message must not be longer than 131072 bytes"),
        ({"timestamp": 1_769_860_800}, "timestamp must be a string in ISO 8601"),
        ({"timestamp": "soon"}, "timestamp must be a moment in ISO 8601, such as 2026-01-31T12:00:00Z"),
        ({"timestamp": "2026-02-30T00:00:00Z"}, "timestamp must be a moment in ISO 8601, such as 2026-01-31T12:00:00Z"),
    ],
)
def test_what_is_refused_and_why(sent: dict[str, Any], says: str) -> None:
    with pytest.raises(ReportError) as refused:
        read(**sent)
    assert str(refused.value) == says


def test_what_is_just_not_too_long_is_taken() -> None:
    report = read(telemetries={"a": "x" * MAX_STRING_BYTES}, message="m" * MAX_MESSAGE_BYTES)
    assert len(str(report.values["a"])) == MAX_STRING_BYTES
    assert len(report.message) == MAX_MESSAGE_BYTES


def test_ten_thousand_keys_are_taken() -> None:
    assert len(read(telemetries={f"k{n}": n for n in range(MAX_KEYS)}).values) == MAX_KEYS + 1


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        ("2026-01-31T12:00:00Z", NOON_US),
        ("2026-01-31T12:00:00", NOON_US),
        ("2026-01-31 12:00:00", NOON_US),
        ("20260131T120000Z", NOON_US),
        ("2026-01-31T17:30:00+05:30", NOON_US),
        ("2026-01-31T12:00:00.5Z", NOON_US + 500_000),
        ("2026-01-31T12:00:00.1234567890Z", NOON_US + 123_456),
        ("2026-01-31", NOON_US - 12 * 3600 * 1_000_000),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
    ],
)
def test_timestamps(text: str, expected_us: int) -> None:
    assert read_timestamp(text) == expected_us


@pytest.mark.parametrize(
    "text", ["", "12:00", "2026-13-01", "2026-01-31T25:00:00Z", "10000-01-01T00:00:00Z", "-1", "now"]
)
def test_what_is_no_timestamp(text: str) -> None:
    with pytest.raises(ReportError):
        read_timestamp(text)


def test_the_digest_is_of_what_was_sent_however_it_was_written() -> None:
    sent = {"status": "online", "telemetries": {"b": 1, "a": "é"}, "unknown": [1, {"z": 1, "y": 2}]}
    again = json.loads(json.dumps(dict(reversed(list(sent.items()))), indent=3, ensure_ascii=True))
    assert digest_of(again) == digest_of(sent)
    canonical = '{"status":"online","telemetries":{"a":"é","b":1},"unknown":[1,{"y":2,"z":1}]}'
    assert digest_of(sent) == hashlib.sha256(canonical.encode()).digest()
    assert digest_of({**sent, "telemetries": {"b": 1, "a": "e"}}) != digest_of(sent)
    assert digest_of({"a": 1}) != digest_of({"a": True}) != digest_of({"a": "1"})


@pytest.mark.parametrize(
    "body", [b"", b"no", b"[]", b'"x"', b"null", b"1", b'{"a":', b"\xff", b'{"a":"\\ud800"}', b"[" * 5_000]
)
def test_a_body_that_is_no_object(body: bytes) -> None:
    with pytest.raises(ReportError):
        read_object(body)


def test_a_body_that_is_one() -> None:
    assert read_object(b' {"status": "online"} ') == {"status": "online"}
