import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.dimensions import (
    MAX_VERSION,
    Dimension,
    DimensionError,
    DimensionType,
    VersionClock,
    compact_object,
    decode_dimension,
    encode_dimension,
    make_dimension,
    max_line_bytes,
    parse_row,
)

LIMIT = 1000


def read(line: bytes) -> Dimension:
    return parse_row(DimensionType.USER, line, VersionClock(), LIMIT)


def refusal(line: bytes) -> str:
    with pytest.raises(DimensionError) as caught:
        read(line)
    return caught.value.code


def test_a_row_keeps_its_version_and_the_form_of_its_numbers() -> None:
    row = read(b'{"id": "a/b", "attributes": {"x": 1.0, "y": [1e2, 12345678901234567890123]}, "version": 7}')
    assert (row.type, row.id, row.version, row.deleted) == ("user", "a/b", 7, False)
    assert row.attributes == '{"x":1.0,"y":[1e2,12345678901234567890123]}'
    assert row.key == b"user/a/b"
    assert abs(row.updated_at_ms - time.time() * 1000) < 5000


def test_a_row_without_a_version_gets_the_time() -> None:
    assert abs(read(b'{"id":"a","attributes":{}}').version - time.time() * 1000) < 5000


def versions(monkeypatch: pytest.MonkeyPatch, *rows: tuple[int, str]) -> list[int]:
    """Return the versions that one clock gives to ids, each at its time."""
    times = iter([time_ms for time_ms, _ in rows])
    monkeypatch.setattr("midstream.dimensions.now_ms", lambda: next(times))
    clock = VersionClock()
    return [clock.next(id_) for _, id_ in rows]


def test_versions_of_one_id_only_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    times = (1000, 1000, 999, 1000, 1001, 1002, 5000, 5000)
    given = versions(monkeypatch, *((time_ms, "a") for time_ms in times))
    assert given == [1000, 1001, 1002, 1003, 1004, 1005, 5000, 5001]


def test_a_bulk_load_does_not_run_ahead_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(1000 + n // 1000, f"u{n}") for n in range(5000)]
    assert versions(monkeypatch, *rows) == [time_ms for time_ms, _ in rows]
    assert versions(monkeypatch, (1000, "a"), (1000, "a"), (1000, "b"), (1001, "b")) == [1000, 1001, 1000, 1001]


def test_ids_are_remembered_as_long_as_needed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = 1000
    monkeypatch.setattr("midstream.dimensions.now_ms", lambda: now_ms)
    clock = VersionClock()
    for n in range(500):
        clock.next(f"u{n}")
    now_ms = 1001
    clock.next("a")
    assert len(clock._given) == 1


def test_a_clock_that_was_set_back_keeps_the_bound_and_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = 10_000
    monkeypatch.setattr("midstream.dimensions.now_ms", lambda: now_ms)
    clock = VersionClock()
    first = [clock.next("a") for _ in range(3)]
    now_ms = 5_000
    for n in range(25_000):
        clock.next(f"u{n}")
        assert len(clock._given) <= 10_000
    assert clock.next("a") > first[-1]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"nonsense", "INVALID_JSON"),
        (b'{"id":"a","attributes":{"a":NaN}}', "INVALID_JSON"),
        (b'{"id":"a","attributes":{"a":1e999}}', "INVALID_JSON"),
        (b'{"id":"a","attributes":{"a":"\\ud800"}}', "INVALID_JSON"),
        (b'{"id":"a","attributes":{"a":1,"a":2}}', "INVALID_JSON"),
        (b'{"id":"a","attributes":{"b":[{"a":1,"\\u0061":2}]}}', "INVALID_JSON"),
        (b'{"id":"a","attributes":{"a":"\xff"}}', "INVALID_UTF8"),
        (b'{"id":"\xff","attributes":{}}', "INVALID_UTF8"),
        (b'{"id":"a","attributes":[1]}', "NOT_AN_OBJECT"),
        (b'{"id":"a","attributes":null}', "NOT_AN_OBJECT"),
        (b'{"id":"a","attributes":"{}"}', "NOT_AN_OBJECT"),
        (b'{"id":"a"}', "INVALID_ROW"),
        (b'{"attributes":{}}', "INVALID_ROW"),
        (b'{"id":1,"attributes":{}}', "INVALID_ROW"),
        (b"[]", "INVALID_ROW"),
        (b'{"id":"a","attributes":{},"version":"1"}', "INVALID_ROW"),
        (b'{"id":"a","attributes":{},"version":1.5}', "INVALID_ROW"),
        (b'{"id":"","attributes":{}}', "INVALID_ID"),
        (b'{"id":"a\\u0000","attributes":{}}', "INVALID_ID"),
        (b'{"id":"' + b"x" * 1025 + b'","attributes":{}}', "INVALID_ID"),
        (b'{"id":"a","attributes":{},"version":-1}', "INVALID_VERSION"),
        (b'{"id":"a","attributes":{},"version":9223372036854775808}', "INVALID_VERSION"),
        (b'{"id":"a","attributes":{"a":' + b"[" * 64 + b"]" * 64 + b"}}", "TOO_DEEP"),
        (b'{"id":"a","attributes":{"a":' + b"[" * 400 + b"1", "INVALID_JSON"),
        (b'{"id":"a","attributes":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "TOO_DEEP"),
        (b'{"id":"a","attributes":{"a":"' + b"x" * LIMIT + b'"}}', "TOO_LARGE"),
    ],
)
def test_a_row_that_cannot_be_taken_says_why(line: bytes, code: str) -> None:
    assert refusal(line) == code


def test_limits_are_reached_before_they_are_passed() -> None:
    assert read(b'{"id":"a","attributes":{"a":' + b"[" * 63 + b"]" * 63 + b"}}")
    assert read(b'{"id":"' + b"x" * 1024 + b'","attributes":{},"version":9223372036854775807}').version == MAX_VERSION
    text = b'{"a":"' + b"x" * (LIMIT - 8) + b'"}'
    assert len(make_dimension(DimensionType.USER, "a", text, 1, LIMIT).attributes) == LIMIT
    escaped = json.dumps({"id": "\x01" * 1024, "attributes": {"a": "x" * (LIMIT - 9)}, "version": MAX_VERSION}).encode()
    assert len(escaped) <= max_line_bytes(LIMIT)
    assert read(escaped).id == "\x01" * 1024


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=st.dictionaries(st.text(), _json, max_size=5), indent=st.sampled_from([None, 2]), ascii_=st.booleans())
def test_every_object_is_taken_and_keeps_its_value(value: dict[str, object], indent: int | None, ascii_: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_).encode()
    assert json.loads(compact_object(text, 1 << 20)) == value


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_a_row_or_an_error(data: bytes) -> None:
    with contextlib.suppress(DimensionError):
        read(data)


def test_a_row_survives_the_topic() -> None:
    row = make_dimension(DimensionType.USER_COURSE, "é/1", '{"name": "ñ"}'.encode(), 3, LIMIT)
    assert decode_dimension(encode_dimension(row)) == row
