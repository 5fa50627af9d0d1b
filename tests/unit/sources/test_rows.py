"""Rows of JSON objects and of columns."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.dimensions import MAX_VERSION, Dimension, DimensionType
from midstream.sources.lenient import without_unfit
from midstream.sources.pages import find
from midstream.sources.reading import Refused
from midstream.sources.rows import Fields, RowMaker
from midstream.sources.watermark import next_watermark, since_text, version_after

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def maker(**fields: Any) -> RowMaker:
    return RowMaker(DimensionType.USER, Fields(**fields), 100_000)


def made(item: Dimension | Refused) -> Dimension:
    assert isinstance(item, Dimension), item
    return item


@given(st.dictionaries(st.text(), JSON, max_size=5), st.integers(0, MAX_VERSION))
def test_all_other_fields_are_attributes(other: dict[str, Any], version: int) -> None:
    other = {name: value for name, value in other.items() if name not in ("id", "v")}
    text = json.dumps({**other, "id": "a", "v": version}, indent=2).encode()
    row = made(maker(version="v").from_json(text, "here"))
    assert (row.id, row.version) == ("a", version)
    assert json.loads(row.attributes) == other
    assert row.attributes == msgspec.json.format(row.attributes, indent=-1)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_row_are_refused(data: bytes) -> None:
    item = maker().from_json(data, "here")
    if isinstance(item, Dimension):
        assert isinstance(json.loads(data), dict)


@pytest.mark.parametrize(
    "text",
    [
        b'{"id":"a","id":"b"}',
        b'{"id":"a","x":1,"\\u0078":2}',
        b'{"id":"a","x":{"y":1,"y":2}}',
        b'{ "id":"a", "id":"b"}',
    ],
)
def test_a_key_that_stands_twice_is_refused(text: bytes) -> None:
    item = maker().from_json(text, "here")
    assert isinstance(item, Refused)
    assert (item.code, "twice" in item.message) == ("INVALID_JSON", True)


@pytest.mark.parametrize("depth", [70, 100_000])
def test_a_row_too_deep_is_refused(depth: int) -> None:
    item = maker().from_json(b'{"id":"a","x":' + b"[" * depth + b"]" * depth + b"}", "here")
    assert isinstance(item, Refused)
    assert item.code == "TOO_DEEP"


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("2024-01-01", "timestamp", 1704067200000),
        ("2024-01-01T00:00:00", "timestamp", 1704067200000),
        ("2024-01-01 02:00:00.0019+02:00", "timestamp", 1704067200001),
        ("20240101T000000Z", "timestamp", 1704067200000),
        (datetime(2024, 1, 1), "timestamp", 1704067200000),
        (datetime(2024, 1, 1, 5, tzinfo=timezone(timedelta(hours=5))), "timestamp", 1704067200000),
        (date(2024, 1, 1), "timestamp", 1704067200000),
        (1704067200, "epoch_s", 1704067200000),
        (1704067200.0019, "epoch_s", 1704067200001),
        (Decimal("1704067200.5"), "epoch_s", 1704067200500),
        (1704067200001, "epoch_ms", 1704067200001),
        ("1704067200001", "epoch_ms", 1704067200001),
        (1704067200001.0, "epoch_ms", 1704067200001),
        ("yesterday", "timestamp", None),
        ("1969-12-31", "timestamp", None),
        (1704067200, "timestamp", None),
        (None, "timestamp", None),
        (True, "epoch_s", None),
        (math.nan, "epoch_s", None),
        (math.inf, "epoch_s", None),
        (math.inf, "epoch_ms", None),
        (1e300, "epoch_s", None),
        (-1, "epoch_ms", None),
    ],
)
def test_times_of_change(value: object, unit: str, expected: int | None) -> None:
    item = maker(updated_at="at", updated_at_unit=unit).from_columns({"id": "a", "at": value}, "here")
    if expected is None:
        assert isinstance(item, Refused)
        assert (item.code, item.id) == ("INVALID_VERSION", "a")
    else:
        assert made(item).version == expected


@given(st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)))
def test_a_time_is_rounded_down_to_its_millisecond(at: datetime) -> None:
    version = made(maker(updated_at="at").from_columns({"id": "a", "at": at}, "here")).version
    microseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert version == microseconds // 1000
    assert since_text(version, True, "epoch_ms") == str(version)
    assert datetime.fromisoformat(since_text(version, True, "timestamp")) <= at


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        (7.0, 7),
        (Decimal(7), 7),
        ("7", 7),
        (MAX_VERSION, MAX_VERSION),
        (True, None),
        (7.5, None),
        (2**63, None),
        (Decimal("NaN"), None),
        (math.inf, None),
        ("٧", None),
        ("", None),
        (None, None),
        (-1, None),
    ],
)
def test_versions(value: object, expected: int | None) -> None:
    item = maker(version="v").from_columns({"id": "a", "v": value}, "here")
    assert (item.version if isinstance(item, Dimension) else None) == expected


def test_a_row_without_a_version_has_the_time_it_was_read() -> None:
    rows = maker()
    first, second = (made(rows.from_columns({"id": "a"}, "here")) for _ in range(2))
    assert 1_700_000_000_000 < first.version < second.version
    assert rows.highest is None


def test_the_highest_version_is_one_of_a_row_that_was_taken() -> None:
    rows = maker(version="v")
    for id_, version in (("a", 5), ("b", 3), ("", 9)):
        rows.from_columns({"id": id_, "v": version}, "here")
    assert rows.highest == 5


@given(st.lists(st.integers(0, 9) | st.just(math.nan), max_size=8))
def test_rows_that_are_not_json_are_taken_out(values: list[float]) -> None:
    body = json.dumps({"rows": [{"id": str(at), "v": value} for at, value in enumerate(values)], "n": 1.10}).encode()
    unfit_at = {at for at, value in enumerate(values) if value != value}
    if not unfit_at:
        with pytest.raises(ValueError, match="in no row"):
            without_unfit(body, "/rows", "id")
        return
    clean, unfit = without_unfit(body, "/rows", "id")
    assert {at: (one.id, one.reason) for at, one in unfit.items()} == {
        at: (str(at), "NaN is no value of JSON") for at in unfit_at
    }
    assert json.loads(clean) == {
        "rows": [None if at in unfit_at else {"id": str(at), "v": value} for at, value in enumerate(values)],
        "n": 1.1,
    }


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("", b'{"a":{"b/c":[1, {"~":"x"}]},"":5}'),
        ("/a/b~1c", b'[1, {"~":"x"}]'),
        ("/a/b~1c/1/~0", b'"x"'),
        ("/", b"5"),
        ("/a/b~1c/2", None),
        ("/a/b~1c/-1", None),
        ("/a/b~1c/0/x", None),
        ("/b", None),
    ],
)
def test_json_pointers(pointer: str, expected: bytes | None) -> None:
    found = find(b'{"a":{"b/c":[1, {"~":"x"}]},"":5}', pointer)
    assert (None if found is None else bytes(found)) == expected


@pytest.mark.parametrize(
    ("after", "highest", "timed", "expected"),
    [
        (None, None, False, None),
        (None, 5, False, "version:5"),
        (7, 5, False, "version:7"),
        (7, 9, False, "version:9"),
        (None, 2000, True, "ms:1000"),
        (1500, 2000, True, "ms:1500"),
        (None, 900, True, "ms:900"),
    ],
)
def test_watermarks(after: int | None, highest: int | None, timed: bool, expected: str | None) -> None:
    found = next_watermark(after, highest, timed, 1000)
    assert found == expected
    assert version_after(found, timed) == (None if expected is None else int(expected.rpartition(":")[2]))
    assert version_after(found, not timed) is None


@pytest.mark.parametrize("since", ["", "5", "ms:", "ms:-1", "ms:x", "version:" + "9" * 20])
def test_a_watermark_that_is_none_means_all(since: str) -> None:
    assert version_after(since, True) is version_after(since, False) is None
