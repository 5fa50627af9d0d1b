"""Days that are asked for."""

from datetime import UTC, date, datetime

import pytest

from midstream.exhaust.period import MAX_DAYS, Period, PeriodError, TooManyDaysError, bounds_ms, read_period

TODAY = date(2026, 3, 15)


def test_what_is_not_given_is_yesterday() -> None:
    yesterday = date(2026, 3, 14)
    assert read_period(None, None, TODAY) == Period(yesterday, yesterday)
    assert read_period("2026-03-01", None, TODAY) == Period(date(2026, 3, 1), yesterday)


def test_days_are_counted_with_both_ends() -> None:
    period = read_period("2026-02-27", "2026-03-01", TODAY)
    assert len(period) == 3
    assert [str(day) for day in period] == ["2026-02-27", "2026-02-28", "2026-03-01"]


def test_at_most_31_days() -> None:
    assert len(read_period("2026-02-12", "2026-03-14", TODAY)) == MAX_DAYS
    with pytest.raises(TooManyDaysError, match="32 days"):
        read_period("2026-02-11", "2026-03-14", TODAY)
    assert len(read_period("2026-02-11", "2026-03-14", TODAY, most=40)) == 32


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026-3-1", "2026-02-30", "2025-02-29", "2026-13-01", "2026-00-10", "0000-01-01", " 2026-03-01"),
        *("2026-03-01\n", "２０２６-03-01", "2026-03-01x", "+026-03-01", "yesterday"),
    ],
)
def test_what_is_no_day(text: str) -> None:
    with pytest.raises(PeriodError) as caught:
        read_period(text, "2026-03-14", TODAY)
    assert not isinstance(caught.value, TooManyDaysError)
    assert "fromDate" in str(caught.value)
    with pytest.raises(PeriodError, match="toDate"):
        read_period("2026-03-01", text, TODAY)


@pytest.mark.parametrize(
    ("first", "last"), [("2026-03-14", "2026-03-13"), ("2026-03-14", "2026-03-15"), ("2026-03-15", "2026-03-15")]
)
def test_days_in_no_order_or_not_over(first: str, last: str) -> None:
    with pytest.raises(PeriodError):
        read_period(first, last, TODAY)


def test_bounds_of_a_day() -> None:
    begin, end = bounds_ms(date(2026, 3, 29))  # a day of 23 hours in many countries
    assert begin == int(datetime(2026, 3, 29, tzinfo=UTC).timestamp() * 1000)
    assert end - begin == 86_400_000
