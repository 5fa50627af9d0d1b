"""The state of devices as ClickHouse has it is the reference's, whatever came in which order, merged or not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from midstream.clickhouse.client import ClickHouse
from midstream.devices.record import encode_report
from midstream.devices.report import Report
from midstream.devices.state import AHEAD_US, Entry, earliest, place_of, state_of
from midstream.devices.stored import MAX_POINTS, Point, read_history, read_state, read_statuses
from processors.devices.storer import DeviceStorer
from processors.lease import Lease
from tests.contract.clickhouse.devices import NOW_US, SECOND_US, put, records, report

_TABLES = ("device_rows", "device_ahead_rows", "device_latest_rows")


def view_state(clickhouse: ClickHouse, device: str) -> dict[str, tuple[str, int, int, str]]:
    """Return what the view says: value, at, received_at and the digest, by key."""
    return {
        key: (value, at_us, received_at_us, report_id[:64])
        for key, value, at_us, received_at_us, report_id in clickhouse.rows(
            "SELECT key, value, toUnixTimestamp64Micro(at), toUnixTimestamp64Micro(received_at), report_id "
            "FROM device_state WHERE device_id = {device:String}",
            {"device": device},
        )
    }


def as_in_view(state: Mapping[str, Entry]) -> dict[str, tuple[str, int, int, str]]:
    return {
        key: (json.dumps(one.value, ensure_ascii=False), one.place.at_us, one.received_at_us, one.place.digest.hex())
        for key, one in state.items()
    }


def view_history(clickhouse: ClickHouse, device: str) -> list[tuple[str, int, str, int]]:
    return sorted(
        tuple(row)
        for row in clickhouse.rows(
            "SELECT key, toUnixTimestamp64Micro(at), report_id, toUnixTimestamp64Micro(received_at) "
            "FROM device_history WHERE device_id = {device:String}",
            {"device": device},
        )
    )


def history_of(reports: Sequence[Report]) -> list[tuple[str, int, str, int]]:
    """Return what the view has to say: each key of each report, once."""
    return sorted(
        (
            key,
            place_of(one).at_us,
            one.digest.hex() + ("" if one.timestamp_us is not None else f"-{one.receipt_id}"),
            one.received_at_us,
        )
        for one in earliest(reports)
        for key in one.values
    )


def check(clickhouse: ClickHouse, device: str, reports: Sequence[Report], moments_us: Sequence[int] = ()) -> None:
    expected = state_of(reports)
    assert read_state(clickhouse.rows, device) == expected
    assert view_state(clickhouse, device) == as_in_view(expected)
    assert view_history(clickhouse, device) == history_of(reports)
    for at_us in moments_us:
        assert read_state(clickhouse.rows, device, at_us) == state_of(reports, at_us)
    statuses = read_statuses(clickhouse.rows, [device, "nobody"])
    assert statuses == ({device: expected["status"]} if reports else {})


def merge(clickhouse: ClickHouse) -> None:
    for table in _TABLES:
        clickhouse.command(f"OPTIMIZE TABLE {table} FINAL")


@pytest.fixture
def unmerged(clickhouse: ClickHouse) -> Iterator[ClickHouse]:
    """Tables that merge only when told."""
    for table in _TABLES:
        clickhouse.command(f"SYSTEM STOP MERGES {table}")
    yield clickhouse
    for table in _TABLES:
        clickhouse.command(f"SYSTEM START MERGES {table}")


_values = st.dictionaries(
    st.sampled_from("abc"), st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x"]), max_size=3
)
_OWN_S = [0, 1, 2, 299, 300, 301, 400, 100_000]
_RECEIVED_S = [0, 1, 2, 100, 299, 300, 400, 86_400]


@st.composite
def deliveries(draw: st.DrawFn, device: str) -> list[Report]:
    """Receipts of reports: ties, nulls, overrides, clocks ahead, no time at all, each report once or several times."""
    receipts: list[Report] = []
    for _ in range(draw(st.integers(1, 6))):
        at_s = draw(st.none() | st.sampled_from(_OWN_S))
        values, override = draw(_values), draw(st.booleans())
        receipts += [
            report(values, at_s=at_s, received_s=received_s, override=override, device=device)
            for received_s in draw(st.lists(st.sampled_from(_RECEIVED_S), min_size=1, max_size=3))
        ]
    return draw(st.permutations(receipts + draw(st.lists(st.sampled_from(receipts), max_size=3))))


@pytest.mark.timeout(600)
def test_any_deliveries_give_the_state_of_the_reference(unmerged: ClickHouse) -> None:
    """Any permutation, repetition and cutting into inserts; looked at after each insert, and once more merged."""
    number = 0
    kept: list[tuple[str, list[Report], list[int]]] = []

    @hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        nonlocal number
        number += 1
        device = f"device {number}"
        receipts = data.draw(deliveries(device))
        moments_us = [NOW_US + s * SECOND_US for s in data.draw(st.lists(st.integers(-1, 700), max_size=2))]
        cuts = data.draw(st.lists(st.integers(1, len(receipts)), max_size=2).map(sorted))
        came: list[Report] = []
        for start, end in zip([0, *cuts], [*cuts, len(receipts)], strict=True):
            if start < end:
                put(unmerged, receipts[start:end])
                came += receipts[start:end]
                check(unmerged, device, came, moments_us)
        kept.append((device, receipts, moments_us))

    run()
    for table in _TABLES:
        unmerged.command(f"SYSTEM START MERGES {table}")
    merge(unmerged)
    for device, receipts, moments_us in kept:
        check(unmerged, device, receipts, moments_us)
    assert read_statuses(unmerged.rows, [device for device, *_ in kept]) == {
        device: state_of(receipts)["status"] for device, receipts, _ in kept
    }
    states = unmerged.rows("SELECT device_id, count() FROM device_state GROUP BY device_id")
    assert dict(states) == {device: len(state_of(receipts)) for device, receipts, _ in kept}


def test_the_earliest_receipt_counts_whatever_came_in_between(clickhouse: ClickHouse) -> None:
    """The same report, first seen when its time was no longer ahead, then by a receipt at which it was."""
    seen, between = report({"a": 1}, at_s=600, received_s=590), report({"a": 2}, at_s=400, received_s=400)
    put(clickhouse, [seen, between])
    assert read_state(clickhouse.rows, "d")["a"].value == 1
    earlier = report({"a": 1}, at_s=600, received_s=0)
    assert earlier.digest == seen.digest
    put(clickhouse, [earlier])
    assert read_state(clickhouse.rows, "d")["a"].value == 2
    check(clickhouse, "d", [seen, between, earlier], [NOW_US + AHEAD_US, NOW_US + AHEAD_US - 1])
    merge(clickhouse)
    check(clickhouse, "d", [seen, between, earlier])


@pytest.mark.parametrize("last", [0, 255])
def test_a_digest_may_end_in_any_byte(clickhouse: ClickHouse, last: int) -> None:
    value = next(n for n in count() if report({"a": n}, at_s=600).digest[-1] == last)
    seen, between = report({"a": value}, at_s=600, received_s=590), report({"a": -1}, at_s=400, received_s=400)
    put(clickhouse, [seen, between, report({"a": value}, at_s=600, received_s=0)])
    assert read_state(clickhouse.rows, "d")["a"].value == -1
    assert read_statuses(clickhouse.rows, ["d"])["d"].place == read_state(clickhouse.rows, "d")["status"].place


def test_the_same_report_months_later_is_one(clickhouse: ClickHouse) -> None:
    """Parts go by month of receipt, and only within one are rows merged."""
    copies = [report({"a": 1}, at_s=0, received_s=days * 86_400, receipt_id=f"m{days}") for days in (60, 0, 30)]
    for one in copies:
        put(clickhouse, [one], appended_us=one.received_at_us)
    merge(clickhouse)
    check(clickhouse, "d", copies)


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "a b", "'\"\\", "\t\n\u0000", "ключ", "🌡", "k" * 1_000])
def test_any_key_and_any_value_is_stored_as_it_is(clickhouse: ClickHouse, key: str) -> None:
    values = [2**63, -(2**63), 1.0, 0.1, -0.0, 1e300, True, "", "null", "\\\"'\t\u0000🌡", "x" * 1_000]
    reports = [report({key: value, "other": 1}, at_s=n) for n, value in enumerate(values)]
    put(clickhouse, reports)
    expected = [Point(NOW_US + n * SECOND_US, value) for n, value in enumerate(values)]
    found = read_history(clickhouse.rows, "d", key)
    assert found == expected
    assert [type(point.value) for point in found] == [type(value) for value in values]
    check(clickhouse, "d", reports)


@pytest.mark.parametrize("device", ["", "it's", "a\\b\t\u0000", "🌡", "d" * 500])
def test_any_device_is_found_by_its_id(clickhouse: ClickHouse, device: str) -> None:
    one = report({"a": 1}, device=device)
    put(clickhouse, [one, report({"a": 2}, device=device + "x")])
    check(clickhouse, device, [one])


@pytest.mark.parametrize(
    ("own", "shown"),
    [
        (None, None),
        ("9999-12-31T23:59:59.999999Z", "2299-12-31 23:59:59.999999"),
        ("0001-01-01T00:00:00Z", "1900-01-01 00:00:00.000000"),
        ("1969-12-31T23:59:59Z", "1969-12-31 23:59:59.000000"),
        ("2026-01-31T12:00:00.000001Z", "2026-01-31 12:00:00.000001"),
    ],
)
def test_the_devices_own_time_is_kept(clickhouse: ClickHouse, own: str | None, shown: str | None) -> None:
    one = report({"a": 1}, **({"timestamp": own} if own else {}))
    put(clickhouse, [one])
    check(clickhouse, "d", [one])
    [(original, micro)] = clickhouse.rows(
        "SELECT toString(at_original), (SELECT max(own_at_us) FROM device_rows) FROM device_history WHERE key = 'a'"
    )
    assert (original, micro) == (shown, one.timestamp_us)


def test_a_message_is_kept(clickhouse: ClickHouse) -> None:
    """Delivered twice, and once more by an earlier receipt at which it was ahead."""
    late = report({}, at_s=600, received_s=590, message="it's \u0000 hot 🌡")
    early = report({}, at_s=600, received_s=0, message="it's \u0000 hot 🌡")
    put(clickhouse, [late, late])
    put(clickhouse, [early])
    [(message, at_us)] = clickhouse.rows("SELECT message, toUnixTimestamp64Micro(at) FROM device_messages")
    assert (message, at_us) == ("it's \u0000 hot 🌡", NOW_US + AHEAD_US)
    check(clickhouse, "d", [late, early])


def test_a_device_of_which_nothing_is_known(clickhouse: ClickHouse) -> None:
    assert read_state(clickhouse.rows, "d") == read_state(clickhouse.rows, "d", NOW_US) == {}
    assert read_statuses(clickhouse.rows, []) == read_statuses(clickhouse.rows, ["d"]) == {}
    assert read_history(clickhouse.rows, "d", "a") == []


def test_a_state_may_be_asked_for_at_any_moment(clickhouse: ClickHouse) -> None:
    one = report({"a": 1}, at_s=0)
    put(clickhouse, [one])
    assert read_state(clickhouse.rows, "d", -(2**62)) == {}
    assert read_state(clickhouse.rows, "d", 2**62) == state_of([one])


def history(count: int, value: Any) -> list[Report]:
    return [report({"a": value(n)}, at_s=n, received_s=n) for n in range(count)]


def test_a_short_history_is_given_as_it_is(clickhouse: ClickHouse) -> None:
    put(clickhouse, history(MAX_POINTS, lambda n: n if n % 3 else None))
    put(clickhouse, [report({"b": 1}, at_s=5), report({"a": 5}, at_s=5)])  # the second one again
    everything = [Point(NOW_US + n * SECOND_US, n if n % 3 else None) for n in range(MAX_POINTS)]
    assert read_history(clickhouse.rows, "d", "a") == everything
    assert read_history(clickhouse.rows, "d", "a", NOW_US + SECOND_US, NOW_US + 3 * SECOND_US) == everything[1:4]
    assert read_history(clickhouse.rows, "d", "a", NOW_US + 10**12) == []


def test_a_long_history_keeps_its_peaks_and_its_end(clickhouse: ClickHouse) -> None:
    count = 5_000
    peaks = {1_234: 900, 4_321: -900}
    put(clickhouse, history(count, lambda n: peaks.get(n, n % 7)))
    found = read_history(clickhouse.rows, "d", "a")
    assert MAX_POINTS // 2 < len(found) <= MAX_POINTS
    assert [point.at_us for point in found] == sorted({point.at_us for point in found})
    by_second = {(point.at_us - NOW_US) // SECOND_US: point.value for point in found}
    assert all(value == peaks.get(n, n % 7) for n, value in by_second.items())
    assert peaks.items() <= by_second.items()
    assert count - 1 in by_second
    gaps = [b - a for a, b in zip(sorted(by_second), sorted(by_second)[1:], strict=False)]
    assert max(gaps) <= 2 * (count // (MAX_POINTS // 3) + 1)


def test_a_long_history_of_texts_and_removals(clickhouse: ClickHouse) -> None:
    count = 2_000
    put(clickhouse, history(count, lambda n: [f"t{n}", None, True][n % 3]))
    found = read_history(clickhouse.rows, "d", "a")
    assert 300 < len(found) <= MAX_POINTS
    assert all(
        point.value == [f"t{n}", None, True][n % 3] for point in found for n in [(point.at_us - NOW_US) // SECOND_US]
    )
    assert found[-1].at_us == NOW_US + (count - 1) * SECOND_US


def test_a_record_that_cannot_be_read_is_parked_and_its_neighbours_are_stored(clickhouse: ClickHouse) -> None:
    good = [report({"a": 1}, at_s=1), report({"b": 2}, at_s=2)]
    values = [encode_report(good[0]), b"\xff{", encode_report(good[1])]
    DeviceStorer(clickhouse, Lease(60_000), 1).store(records(values))
    check(clickhouse, "d", good)
    [(code, scope, raw, events)] = clickhouse.rows("SELECT code, scope, hex(raw), events FROM rejects")
    assert (code, scope, raw, events) == ("POISON", "batch", b"\xff{".hex().upper(), 0)


def test_columns_read_as_the_page_for_analysts_says(clickhouse: ClickHouse) -> None:
    one = report({"a": 21.5}, at_s=1, received_s=2)
    put(clickhouse, [one])
    [row] = clickhouse.named_rows("SELECT device_id, key, value, at, received_at FROM device_state WHERE key = 'a'")
    noon = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=NOW_US)
    moments = [row.pop(name).replace(tzinfo=UTC) - noon for name in ("at", "received_at")]
    assert row == {"device_id": "d", "key": "a", "value": "21.5"}
    assert moments == [timedelta(seconds=1), timedelta(seconds=2)]
