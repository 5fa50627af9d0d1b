"""From `make run` ready: a batch posted is in `events` within 2 s, the very first one too."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.integration.outside import Outside, make_event
from tests.support.pipeline import Pipeline

LIMIT_S = 2.0
VERDICT_LIMIT_S = 3.0
POLL_S = 0.02


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline that nothing has gone through."""
    with Pipeline(tmp_path_factory.mktemp("fresh") / "home") as running:
        yield running


def seconds_until_visible(outside: Outside, eid: str = "INTERACT", events: int = 20) -> float:
    """Post a batch; return how long it took, from before the post, until all its events could be read."""
    sent = [make_event(eid) for _ in range(events)]
    began = time.monotonic()
    batch_id = outside.send(sent)
    sql = "SELECT count() FROM events WHERE batch_id = {batch_id:String}"
    while outside.value(sql, batch_id=batch_id) < events:
        assert time.monotonic() - began < 30, "not visible within 30 s"
        time.sleep(POLL_S)
    return time.monotonic() - began


def test_visible_within_two_seconds_cold_and_warm(fresh: Pipeline) -> None:
    outside = Outside(fresh)
    # This opens the connection; nothing has gone through the pipeline yet.
    assert outside.value("SELECT count() FROM events") == 0
    first = seconds_until_visible(outside)
    second = seconds_until_visible(outside, "LOG")  # the other table
    warm = [seconds_until_visible(outside) for _ in range(10)]
    time.sleep(3)
    idle = seconds_until_visible(outside, events=1)
    print(f"first {first:.2f} s, second {second:.2f} s, warm up to {max(warm):.2f} s, after a pause {idle:.2f} s")
    assert first < LIMIT_S
    assert second < LIMIT_S
    assert max(warm) < LIMIT_S
    assert idle < LIMIT_S


def test_visible_within_two_seconds_after_a_restart(fresh: Pipeline) -> None:
    fresh.stop()
    fresh.start()
    outside = Outside(fresh)
    assert outside.value("SELECT count() FROM events") > 0
    first = seconds_until_visible(outside)
    print(f"first after a restart {first:.2f} s")
    assert first < LIMIT_S


def test_rejects_and_duplicates_are_visible_soon(fresh: Pipeline) -> None:
    """They gather a little longer, for fewer inserts, and are still there within the limit."""
    outside = Outside(fresh)
    event = make_event()
    outside.settle([outside.send([event])])
    began = time.monotonic()
    batch_id = outside.send([event, {"eid": "NOBODY", "mid": "m"}])
    found = outside.settle([batch_id])
    assert (found.duplicate, found.rejected) == (1, 1)
    assert time.monotonic() - began < VERDICT_LIMIT_S
