"""Client times of all sizes become milliseconds that a column can hold."""

import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.events.times import MAX_MS, normalise_ets, original_ets


@pytest.mark.parametrize(
    ("ets", "expected_ms"),
    [
        (1586431492513, 1586431492513),
        (1.586431492513e12, 1586431492513),
        (1586431492513.9, 1586431492513),
        (1586431492, 1586431492000),
        (1586431492.513, 1586431492513),
        (1586431492513678, 1586431492513),
        (1586431492513678901, 1586431492513),
        (1.586431492513678e18, 1586431492513),
        (9999999999, 9999999999000),
        (1_000_000_000_000, 1_000_000_000_000),
        (12312314, 12312314),
        (0, 0),
        (0.5, 0),
        (-0.0, 0),
        (-1586431492, 0),
        (4102444800000, 4102444800000),
        (4102444800, 4102444800000),
        (MAX_MS, MAX_MS),
        (MAX_MS + 1, MAX_MS),
        (99_999_999_999_999, MAX_MS),
        (10**17, MAX_MS),
        (2**63, 9223372036854),
        (2**64, MAX_MS),
        (10**400, MAX_MS),
        (-(10**400), 0),
        (sys.float_info.max, MAX_MS),
        (float("inf"), MAX_MS),
        (float("-inf"), 0),
        (float("nan"), 0),
    ],
)
def test_by_number_of_digits(ets: int | float, expected_ms: int) -> None:
    assert normalise_ets(ets) == expected_ms


@given(st.integers() | st.floats())
def test_every_number_has_a_time_that_can_be_stored(ets: int | float) -> None:
    ms = normalise_ets(ets)
    assert isinstance(ms, int)
    assert 0 <= ms <= MAX_MS


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"ets":1586431492513}', "1586431492513"),
        (b'{"ets": 1.586431492513E12 , "mid":"a"}', "1.586431492513E12"),
        (b'{"ets":1586431492513.0}', "1586431492513.0"),
        (b'{"edata":{"ets":7.0},"ets":1.5e3}', "1.5e3"),
        (b'{"ets"\n:\t1.5e3,"edata":{"ets":7.0}}', "1.5e3"),
        (rb'{"a":"\"ets\":9.5","ets":1.5}', "1.5"),
        (rb'{"edata":{"ets":2},"\u0065ts":1.5}', "1.5"),
        (b'{"ets":99999999999999999999999}', "99999999999999999999999"),
        (b'{"ets":-0.0}', "-0.0"),
    ],
)
def test_the_original_is_kept_as_it_was_sent(raw: bytes, expected: str) -> None:
    assert original_ets(orjson.loads(raw)["ets"], raw) == expected
