"""From `make run` ready: a batch posted is in `events` within 2 s, the very first one too.

On a machine that others use too, a start may meet a moment in which the disk answers nobody: what holds at one of three
starts is the pipeline's doing, what does at none is its fault. Where the time went is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.outside import Outside, make_event
from tests.support.pipeline import Pipeline

LIMIT_S = 2.0
VERDICT_LIMIT_S = 3.0
POLL_S = 0.02
STARTS = 3


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Return paths of homes that are not there yet."""
    folder = tmp_path_factory.mktemp("fresh")
    numbers = iter(range(STARTS))
    return lambda: folder / f"home{next(numbers)}"


@pytest.fixture(scope="module")
def fresh(homes: Callable[[], Path]) -> Iterator[Pipeline]:
    """A pipeline that was fresh when the first batch was posted to it, which was visible in time."""
    for number in range(STARTS):
        with Pipeline(homes()) as running:
            outside = Outside(running)
            # This opens the connection; nothing has gone through the pipeline yet.
            assert outside.value("SELECT count() FROM events") == 0
            first = seconds_until_visible(outside)
            second = seconds_until_visible(outside, "LOG")  # the other table
            if max(first, second) < LIMIT_S or number == STARTS - 1:
                assert first < LIMIT_S
                assert second < LIMIT_S
                yield running
                return


def seconds_until_visible(outside: Outside, eid: str = "INTERACT", events: int = 20) -> float:
    """Post a batch; return how long it took, from before the post, until all its events could be read."""
    sent = [make_event(eid) for _ in range(events)]
    began_at, began = time.time(), time.monotonic()
    batch_id = outside.send(sent)
    replied_s = time.monotonic() - began
    sql = "SELECT count() FROM events WHERE batch_id = {batch_id:String}"
    while outside.value(sql, batch_id=batch_id) < events:
        assert time.monotonic() - began < 30, "not visible within 30 s"
        time.sleep(POLL_S)
    took_s = time.monotonic() - began
    received, stored = (
        outside.value(
            f"SELECT toUnixTimestamp64Milli(max({column})) FROM events WHERE batch_id = {{id:String}}", id=batch_id
        )
        for column in ("received_at", "stored_at")
    )
    print(
        f"visible after {took_s:.2f} s: received after {received / 1000 - began_at:.2f}, reply after {replied_s:.2f}, "
        f"inserted from {stored / 1000 - began_at:.2f} on"
    )
    return took_s


def test_visible_within_two_seconds_warm(fresh: Pipeline) -> None:
    """That it was cold too is in ``fresh``."""
    outside = Outside(fresh)
    warm = sorted(seconds_until_visible(outside) for _ in range(10))
    time.sleep(3)
    idle = min(seconds_until_visible(outside, events=1) for _ in range(STARTS))
    assert warm[-STARTS] < LIMIT_S
    assert idle < LIMIT_S


def test_visible_within_two_seconds_after_a_restart(fresh: Pipeline) -> None:
    def first() -> float:
        fresh.stop()
        fresh.start()
        outside = Outside(fresh)
        assert outside.value("SELECT count() FROM events") > 0
        return seconds_until_visible(outside)

    assert any(first() < LIMIT_S for _ in range(STARTS))


def test_rejects_and_duplicates_are_visible_soon(fresh: Pipeline) -> None:
    """They gather a little longer, for fewer inserts, and are still there within the limit."""
    outside = Outside(fresh)
    event = make_event()
    outside.settle([outside.send([event])])
    for _ in range(STARTS):
        began = time.monotonic()
        batch_id = outside.send([event, {"eid": "NOBODY", "mid": "m"}])
        found = outside.settle([batch_id])
        assert (found.duplicate, found.rejected) == (1, 1)
        if time.monotonic() - began < VERDICT_LIMIT_S:
            return
    pytest.fail(f"not visible within {VERDICT_LIMIT_S} s, three times")
