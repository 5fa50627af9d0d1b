"""The judge finds what is lost, doubled, invented, miscounted: each kind, and the event's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest

from tests.chaos.judge import Found, Judgement, judge
from tests.chaos.ledger import Ledger


def make_ledger() -> Ledger:
    """Three batches: a, b and an invalid one; b again and c, acknowledged twice; d, whose reply was lost."""
    ledger = Ledger()
    for number, (mids, attempts, acknowledged) in enumerate(
        [(("a", "b", "bad"), 1, 1), (("b", "c"), 3, 2), (("d",), 1, 0), (("never",), 0, 0)]
    ):
        events = [{"mid": mid, "context": {} if mid == "bad" else {"channel": "c"}} for mid in mids]
        sent = ledger.add(number, orjson.dumps({"params": {"msgid": f"m{number}"}, "events": events}))
        sent.attempts, sent.acknowledged = attempts, acknowledged
    return ledger


EXACT = Found(
    stored=Counter(["a", "b", "c", "d"]),
    visible=4,
    duplicates=Counter(["b", "b", "c"]),
    rejects=Counter(["bad"]),
    received={"m0": 1, "m1": 2, "m2": 1},
    uneven=[],
    in_flight=0,
    unaccounted=0,
)


def judged(**changes: object) -> Judgement:
    return judge(make_ledger(), replace(EXACT, **changes))  # type: ignore[arg-type]


def test_what_is_exact() -> None:
    found = judged()
    assert found.exact
    assert found.faults == []
    assert (found.sent, found.acknowledged) == (6, 7)
    assert (found.stored, found.distinct, found.duplicate, found.rejected) == (4, 4, 3, 1)
    assert (found.lost, found.double, found.invented, found.unaccounted) == (0, 0, 0, 0)


def test_a_batch_whose_reply_was_lost_may_not_have_arrived() -> None:
    stored = Counter(["a", "b", "c"])
    found = judged(stored=stored, visible=3, received={"m0": 1, "m1": 2})
    assert found.exact


def test_a_batch_whose_reply_was_lost_may_have_arrived_once_more() -> None:
    found = judged(duplicates=Counter(["b", "b", "b", "c", "c"]), received={"m0": 1, "m1": 3, "m2": 1})
    assert found.exact


@pytest.mark.parametrize(
    ("changes", "count", "number", "named"),
    [
        pytest.param({"stored": Counter(["a", "b", "d"]), "visible": 3}, "lost", 1, "not stored: c", id="lost"),
        pytest.param(
            {"stored": Counter(["a", "b", "b", "c", "d"]), "visible": 5}, "double", 1, "more than once: b", id="double"
        ),
        pytest.param(
            {"stored": Counter("abcdx"), "visible": 5}, "invented", 1, "never sent as valid events: x", id="invented"
        ),
        pytest.param(
            {"stored": Counter(["a", "b", "c", "d", "bad"]), "visible": 5, "rejects": Counter()},
            "invented",
            1,
            "never sent as valid events: bad",
            id="an invalid one stored",
        ),
        pytest.param(
            {"stored": Counter(["a", "b", "c", "d", "never"]), "visible": 5},
            "invented",
            1,
            "never sent as valid events: never",
            id="one that was made and not sent",
        ),
        pytest.param(
            {"rejects": Counter(["bad", "a"])}, "miscounted_mids", 1, "never sent as invalid events: a", id="refused"
        ),
        pytest.param({"rejects": Counter()}, "miscounted_mids", 1, "do not add up: bad", id="a reject lost"),
        pytest.param({"duplicates": Counter(["b", "c"])}, "miscounted_mids", 1, "add up: b", id="a duplicate lost"),
        pytest.param(
            {"duplicates": Counter(["b", "b", "c", "c"])}, "miscounted_mids", 1, "add up: c", id="a duplicate too many"
        ),
        pytest.param({"unaccounted": 2}, "unaccounted", 2, "2 events are unaccounted for", id="unaccounted"),
        pytest.param({"in_flight": 3}, "in_flight", 3, "3 events are in flight", id="in flight"),
        pytest.param({"uneven": [{"batch_id": "x"}]}, "uneven_batches", 1, "'batch_id': 'x'", id="uneven"),
        pytest.param({"visible": 3}, "double", 0, "shows 3 rows of 4", id="a view that hides a row"),
        pytest.param(
            {"received": {"m0": 1, "m1": 1, "m2": 1}, "duplicates": Counter(["b"])},
            "lost",
            0,
            "m1 (2 <= 1 <= 3)",
            id="a batch received less often than acknowledged",
        ),
        pytest.param(
            {"received": {"m0": 2, "m1": 2, "m2": 1}, "duplicates": Counter("abbbc"), "rejects": Counter(bad=2)},
            "lost",
            0,
            "m0 (1 <= 2 <= 1)",
            id="a batch received more often than sent",
        ),
        pytest.param(
            {"received": {"m0": 1, "m1": 2, "m2": 1, "m9": 1}}, "lost", 0, "nobody sent: m9", id="a batch of nobody"
        ),
    ],
)
def test_what_is_wrong_is_counted_and_named(changes: dict[str, object], count: str, number: int, named: str) -> None:
    found = judged(**changes)
    assert getattr(found, count) == number
    assert any(named in fault for fault in found.faults), found.faults
    assert not found.exact


def test_many_faults_are_counted_and_some_named() -> None:
    found = judged(stored=Counter({f"x{number}": 1 for number in range(100)}), visible=100)
    assert found.invented == 100
    [line] = [fault for fault in found.faults if "never sent as valid" in fault]
    assert line.startswith("100 ")
    assert line.endswith(" ...")


@pytest.mark.parametrize("change", [lambda ledger: ledger.batches.clear()])
def test_nothing_sent_and_something_stored(change: Callable[[Ledger], None]) -> None:
    ledger = make_ledger()
    change(ledger)
    assert judge(ledger, EXACT).invented == 4
