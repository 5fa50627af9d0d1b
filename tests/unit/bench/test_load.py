"""The judgement over a load, by the sender's ledger."""

from __future__ import annotations

import pytest

from bench.load import _fifths, _weighted_quantiles, judge
from bench.sender import Sent

EXPECTED = {"stored": 970, "duplicate": 20, "rejected": 10}


def verdict(repeated: int = 0, timed: int = 970, ended: list[str] | None = None, **counts: int) -> list[str]:
    return judge(Sent(repeated_events=repeated), EXPECTED, {**EXPECTED, **counts}, timed, ended or [])


def test_counts_as_the_ledger_has_them_are_exact() -> None:
    assert verdict() == []


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"stored": 969}, "stored: 969 instead of 970"),
        ({"stored": 971}, "stored: 971 instead of 970"),
        ({"duplicate": 21}, "duplicate: 21 instead of 20"),
        ({"rejected": 9}, "rejected: 9 instead of 10"),
    ],
)
def test_one_event_more_or_less_is_told(counts: dict[str, int], said: str) -> None:
    assert said in verdict(**counts)


def test_what_may_have_been_taken_twice_may_be_duplicate_or_rejected_but_never_stored_more() -> None:
    assert verdict(repeated=20, duplicate=40, rejected=11) == []
    assert verdict(repeated=20, duplicate=41) == ["duplicate: 41 instead of 20"]
    assert verdict(repeated=20, duplicate=19) == ["duplicate: 19 instead of 20"]
    assert verdict(repeated=20, timed=971, stored=971) == ["stored: 971 instead of 970"]


def test_a_process_that_ended_and_events_without_a_time_are_told() -> None:
    assert verdict(ended=["store"]) == ["store ended during the load"]
    assert verdict(timed=900) == ["the time until visible is known of 900 events of 970"]


def test_a_refusal_without_retry_after_is_told() -> None:
    sent = Sent(refused={503: 5}, without_retry_after=2)
    assert judge(sent, EXPECTED, EXPECTED, 970, []) == ["2 answers 503 without Retry-After"]


def test_quantiles_count_each_value_by_its_weight() -> None:
    assert _weighted_quantiles([30.0, 10.0, 20.0], [1, 98, 1]) == {"p50": 10.0, "p95": 10.0, "p99": 20.0}
    assert _weighted_quantiles(list(map(float, range(1, 101))), [1] * 100) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_fifths_are_neighbours_and_together_everything() -> None:
    parts = _fifths(list(range(12)))
    assert [value for part in parts for value in part] == list(range(12))
    assert [len(part) for part in parts] == [2, 2, 3, 2, 3]
    assert _fifths([1]) == [[1]]
