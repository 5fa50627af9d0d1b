"""Durations: the forms of the contract, exactly."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.assignments.duration import (
    MAX_DAYS,
    TOO_LONG,
    WRONG_FORMAT,
    DurationError,
    read_duration,
    show_duration,
)

MAX_US = MAX_DAYS * 86_400 * 1_000_000
MICROSECOND = timedelta(microseconds=1)


def us(**parts: float) -> int:
    return timedelta(**parts) // MICROSECOND


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("01:30:00", us(hours=1, minutes=30)),
        ("1:02:03", us(hours=1, minutes=2, seconds=3)),
        ("01:30:00.5", us(hours=1, minutes=30, milliseconds=500)),
        ("01:30:00.000001", us(hours=1, minutes=30, microseconds=1)),
        ("25:00:00", us(hours=25)),
        ("100:00:00", us(hours=100)),
        ("00:90:00", us(minutes=90)),
        ("15:30", us(minutes=15, seconds=30)),
        ("15:30.25", us(minutes=15, seconds=30, milliseconds=250)),
        ("PT1H", us(hours=1)),
        ("PT1H30M", us(hours=1, minutes=30)),
        ("P1DT2H", us(days=1, hours=2)),
        ("P3D", us(days=3)),
        ("PT0.5S", us(milliseconds=500)),
        ("PT0,5S", us(milliseconds=500)),
        ("PT1.5H", us(minutes=90)),
        ("P0.5D", us(hours=12)),
        ("PT90M", us(minutes=90)),
        ("PT36H", us(hours=36)),
        ("P1DT1H1M1.000001S", us(days=1, hours=1, minutes=1, seconds=1, microseconds=1)),
        ("1 01:00:00", us(days=1, hours=1)),
        ("3 days 04:05:06", us(days=3, hours=4, minutes=5, seconds=6)),
        ("3 days, 04:05:06", us(days=3, hours=4, minutes=5, seconds=6)),
        ("1 day 00:00:01", us(days=1, seconds=1)),
        ("1 day, 0:00:01.5", us(days=1, seconds=1.5)),
        ("3 days", us(days=3)),
        ("0 days 00:00:00", 0),
        ("90", us(seconds=90)),
        (" 90 ", us(seconds=90)),
        (90, us(seconds=90)),
        (90.5, us(seconds=90.5)),
        ("90.5", us(seconds=90.5)),
        ("0.1", 100_000),
        (0.1, 100_000),
        (0.1 + 0.2, 300_000),
        (1e-7, 0),
        (1.7976931348623157e-308, 0),
        (0, 0),
        (-0.0, 0),
        ("59.9999999", us(minutes=1)),
        ("106751991 00:00:00", MAX_US),
        (MAX_DAYS * 86_400, MAX_US),
    ],
)
def test_reads_each_form(value: str | float, expected: int) -> None:
    assert read_duration(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("1h", "P1W", "P1Y", "P1M", "", " ", "P", "PT", "P1DT", "PT1D", "P1", "PT1", "p1d", "pt1h", "PT1M1H", "P1H"),
        *("-1", "-00:00:01", "-PT1H", "PT-1H", "-1 00:00:00", "-0.5", "+90", "NaN", "nan", "Infinity", "inf", "-inf"),
        *("ninety", "1e3", "1_0", "٣", "1:2:3:4", ":30", "30:", "1::2", "1.5:00", "1 01:00:00 x", "00:00:00Z"),
        *("1.5 days", "three days", "1 week", "0x10", "9" * 101, "\x00", "1\n2", "days 01:00:00", "1days 01:00:00"),
        *(-1, -0.5, -(10**400), True, False, math.nan, math.inf, -math.inf, None, [], [90], {}, b"90"),
    ],
)
def test_refuses_what_is_no_duration(value: Any) -> None:
    with pytest.raises(DurationError, match="Duration has wrong format") as error:
        read_duration(value)
    assert str(error.value) == WRONG_FORMAT


@pytest.mark.parametrize(
    "value",
    [
        *("106751991 00:00:00.000001", "106751992 days", "P106751992D", "9" * 100, "P" + "9" * 90 + "D"),
        *(MAX_DAYS * 86_400 + 1, 10**400, 10**4000, 1e300, 1.7976931348623157e308, 2**63),
    ],
)
def test_refuses_what_is_too_long_to_be_kept(value: str | float) -> None:
    with pytest.raises(DurationError) as error:
        read_duration(value)
    assert str(error.value) == TOO_LONG == "The number of days must be between 0 and 106751991."


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("PT1H", "01:00:00"),
        ("90", "00:01:30"),
        (90, "00:01:30"),
        (90.5, "00:01:30.500000"),
        ("25:00:00", "1 01:00:00"),
        (0, "00:00:00"),
        (0.000001, "00:00:00.000001"),
        ("3 days, 04:05:06", "3 04:05:06"),
    ],
)
def test_shows_as_the_contract_says(value: str | float, shown: str) -> None:
    assert show_duration(read_duration(value)) == shown


@given(st.integers(0, MAX_US))
def test_what_is_shown_is_read_back(duration_us: int) -> None:
    assert read_duration(show_duration(duration_us)) == duration_us


@given(st.integers(0, 1_000), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), st.integers(0, 999_999))
def test_every_form_of_one_duration_is_the_same(days: int, hours: int, minutes: int, seconds: int, rest: int) -> None:
    expected = us(days=days, hours=hours, minutes=minutes, seconds=seconds, microseconds=rest)
    clock = f"{hours:02}:{minutes:02}:{seconds:02}.{rest:06}"
    forms = [
        *(f"{days} {clock}", f"{days} days {clock}", f"{days} day, {clock}"),
        *(f"P{days}DT{hours}H{minutes}M{seconds}.{rest:06}S", f"{expected // 10**6}.{expected % 10**6:06}"),
    ]
    assert [read_duration(form) for form in forms] == [expected] * len(forms)


@given(st.integers(0, 10**9 * 10**6))
def test_seconds_as_a_float_lose_no_microsecond(duration_us: int) -> None:
    assert read_duration(duration_us / 10**6) == duration_us


@given(st.text(alphabet="PDTHMSW0123456789.,:- daysnif٣", max_size=20) | st.floats() | st.integers())
def test_anything_is_read_or_refused(value: str | float) -> None:
    try:
        duration_us, refusal = read_duration(value), None
    except DurationError as error:
        duration_us, refusal = 0, str(error)
    assert refusal in (None, WRONG_FORMAT, TOO_LONG)
    assert 0 <= duration_us <= MAX_US
