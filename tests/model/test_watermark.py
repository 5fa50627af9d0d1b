"""``progress`` and ``complete_until`` never claim too much; with any of their rules broken, they do."""

from __future__ import annotations

import pytest

from tests.model.explore import Explored, explore
from tests.model.watermark import Rules, Watermark

_MAX_STATES = 200_000


def explored(sizes: dict[str, int], rules: Rules | None = None) -> Explored:
    model = Watermark(rules, **sizes)
    found = explore(model.initial(), model.successors, model.violation, model.is_done, _MAX_STATES)
    print(f"watermark {sizes}: {found}")
    return found


_CHAIN = {"batches": 3, "slots": 0, "last": 0}
_MARKS = {"batches": 2, "slots": 1, "last": 2}
_TWO = {"batches": 1, "slots": 2, "last": 1}


@pytest.mark.parametrize("sizes", [_CHAIN, _MARKS, _TWO], ids=["the chain", "one collector", "two collectors"])
def test_no_state_claims_too_much(sizes: dict[str, int]) -> None:
    found = explored(sizes)
    assert not found.violation, str(found)
    assert found.states > 1_000


@pytest.mark.parametrize(
    ("rules", "sizes", "breaks"),
    [
        (Rules(ends_after_validated=False), _CHAIN, "W1"),
        (Rules(waits_for_receipts=False), _CHAIN, "W1"),
        (Rules(low_before_ends=False), _MARKS, "W2"),
        (Rules(opens_before_accepting=False), _MARKS, "W2"),
        (Rules(counts_arriving=False), _MARKS, "W2"),
        (Rules(counts_spooled=False), _MARKS, "W2"),
    ],
    ids=[
        "ends read before what validate committed",
        "receipts not waited for",
        "marks read after the end of telemetry.raw",
        "a slot that accepts before its first mark",
        "a mark that passes over what is not answered yet",
        "a mark that passes over the spool",
    ],
)
def test_a_broken_rule_is_found_out(rules: Rules, sizes: dict[str, int], breaks: str) -> None:
    found = explored(sizes, rules)
    assert found.violation.startswith(breaks), str(found)
    assert found.trace
