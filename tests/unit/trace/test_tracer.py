"""The order of asking, and its bounds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from midstream.clickhouse.client import ClickHouseError
from midstream.events.judge import Judge
from midstream.events.schemas import load_schemas
from midstream.settings import Settings
from midstream.trace import tracer as tracer_module
from midstream.trace.arrivals import BatchFacts, Evidence, Outcome, Sighting, Stored, Verdict
from midstream.trace.backlog import Seen
from midstream.trace.tracer import Tracer, TracerBusyError
from tests.support.ports import free_ports

AT_MS = 1_790_000_000_000
FACTS = BatchFacts("http", "m", "d", "app", "telemetry.raw", 1, 9)


class World:
    """A backlog and a ClickHouse that say what they are asked, in its order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.backlog = Seen(deadline_s=0)
        self.late: dict[str, BatchFacts] = {}
        self.events: list[tuple[Any, ...]] = []
        self.later_events: list[tuple[Any, ...]] = []
        self.others: list[tuple[Any, ...]] = []
        self.marks: list[tuple[str, int, int]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.away = False

    async def search(self, mids: Collection[str]) -> Seen:
        self.asked.append("backlog")
        return self.backlog

    async def batches(self, batch_ids: Collection[str], seen: Seen) -> dict[str, BatchFacts]:
        self.asked.append("late batches")
        return {batch_id: facts for batch_id, facts in self.late.items() if batch_id in batch_ids}

    async def close(self) -> None:
        pass

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> Sequence[tuple[Any, ...]]:
        assert self.go_on.wait(20)
        if self.away:
            raise ClickHouseError("away", None)
        if "FROM collectors" in sql:
            self.asked.append("collectors")
            return [(AT_MS, self.marks)]
        if "FROM reject_rows" in sql:
            self.asked.append("others")
            return self.others
        if "UNION ALL" in sql:
            self.asked.append("events")
            asked_again = self.asked.count("events") > 1
            return self.later_events if asked_again else self.events
        if "NULL FROM learning_events" in sql:
            return [("m", AT_MS + 7, None)]
        return []


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(load_schemas(), 512 * 1024, 64)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(tracer_module, "BacklogSearch", lambda settings, judge: made)
    return made


def stored(mid: str) -> tuple[Any, ...]:
    return ("learning_events", mid, "b1", 0, AT_MS)


async def test_clickhouse_is_asked_last_so_that_nothing_slips_through(world: World, judge: Judge) -> None:
    tracer = Tracer(Settings(), judge, world.rows)
    world.backlog.sightings["m"] = [Sighting(Evidence.BACKLOG, "b1", 0, AT_MS, facts=FACTS)]
    world.events = world.later_events = [stored("m")]
    (trace,) = await tracer.trace(["m"])
    assert world.asked[:2] == ["collectors", "backlog"]
    assert sorted(world.asked[2:]) == ["events", "others"]
    assert trace.stored == Stored("learning_events", AT_MS + 7)
    assert [(one.outcome, one.facts) for one in trace.arrivals] == [(Outcome.STORED, FACTS)]
    await tracer.close()


async def test_what_another_hosts_spool_may_hold_makes_an_answer_incomplete(
    world: World, judge: Judge, tmp_path: Path
) -> None:
    for world.marks, complete in ([("another", AT_MS, 0)], True), ([("another", AT_MS, 1)], False):
        tracer = Tracer(Settings(home=tmp_path), judge, world.rows)
        (trace,) = await tracer.trace(["never"])
        assert (trace.verdict, trace.complete) == (Verdict.UNKNOWN, complete)
        await tracer.close()


async def test_a_batch_that_is_not_written_yet_is_looked_for_in_kafka(world: World, judge: Judge) -> None:
    tracer = Tracer(Settings(), judge, world.rows)
    world.events = world.later_events = [stored("m")]
    (trace,) = await tracer.trace(["m"])
    assert trace.arrivals[0].facts is None
    assert "late batches" not in world.asked  # Kafka has none of that kind
    world.backlog.receipts = {object(): (0, 1)}  # type: ignore[dict-item]
    world.late = {"b1": FACTS}
    (trace,) = await tracer.trace(["m"])
    assert trace.arrivals[0].facts == FACTS
    await tracer.close()


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_duplicate_without_its_event_is_asked_for_again(world: World, judge: Judge, is_there: bool) -> None:
    tracer = Tracer(Settings(), judge, world.rows)
    world.others = [("duplicate", "m", "b2", 1, AT_MS + 5, "b1", "true", "", 0, AT_MS)]
    world.later_events = [stored("m")] if is_there else []
    (trace,) = await tracer.trace(["m"])
    assert world.asked[-1] == "events"
    assert world.asked.count("events") == 2
    assert trace.verdict is Verdict.STORED
    assert trace.stored == (Stored("learning_events", AT_MS + 7) if is_there else None)
    assert [(one.batch_id, one.outcome, one.differs) for one in trace.arrivals] == [
        ("b1", Outcome.STORED, None),
        ("b2", Outcome.DUPLICATE, True),
    ]
    await tracer.close()


async def test_what_no_event_can_have_as_its_mid_is_unknown_without_asking(world: World, judge: Judge) -> None:
    tracer = Tracer(Settings(), judge, world.rows)
    traces = await tracer.trace(["", "\ud800"])
    assert [(one.mid, one.verdict, one.complete) for one in traces] == [
        ("", Verdict.UNKNOWN, True),
        ("\ud800", Verdict.UNKNOWN, True),
    ]
    assert world.asked == []
    await tracer.close()


async def test_too_many_at_once_are_refused_and_the_others_answered(world: World, judge: Judge) -> None:
    tracer = Tracer(Settings(), judge, world.rows)
    world.go_on.clear()
    waiting = [asyncio.create_task(tracer.trace([f"m{number}"])) for number in range(32)]
    await asyncio.sleep(0)
    with pytest.raises(TracerBusyError):
        await tracer.trace(["m"])
    world.go_on.set()
    assert all(len(found) == 1 for found in await asyncio.gather(*waiting))
    assert len(await tracer.trace(["m"])) == 1
    await tracer.close()


async def test_clickhouse_away_is_an_error_and_leaves_room(world: World, judge: Judge) -> None:
    tracer = Tracer(Settings(), judge, world.rows)
    world.away = True
    for _ in range(40):
        with pytest.raises(ClickHouseError):
            await tracer.trace(["m"])
    world.away = False
    assert len(await tracer.trace(["m"])) == 1
    await tracer.close()


async def test_kafka_away_makes_an_answer_incomplete(tmp_path: Path, judge: Judge) -> None:
    (port,) = free_ports(1)
    settings = Settings(home=tmp_path, kafka=f"127.0.0.1:{port}", trace_search_ms=1_000)
    world = World()
    world.events = world.later_events = [stored("m")]
    tracer = Tracer(settings, judge, world.rows)
    for _ in range(2):
        known, unknown = await tracer.trace(["m", "never"])
        assert (known.verdict, known.complete) == (Verdict.STORED, False)
        assert (unknown.verdict, unknown.complete) == (Verdict.UNKNOWN, False)
    await tracer.close()


async def test_kafka_silent_is_not_waited_for_longer_than_said(tmp_path: Path, judge: Judge) -> None:
    accepted = []

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        await reader.read()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", free_ports(1)[0])
    port = server.sockets[0].getsockname()[1]
    tracer = Tracer(Settings(home=tmp_path, kafka=f"127.0.0.1:{port}", trace_search_ms=300), judge, World().rows)
    async with asyncio.timeout(10):
        (trace,) = await tracer.trace(["m"])
    assert (trace.verdict, trace.complete) == (Verdict.UNKNOWN, False)
    assert accepted
    await tracer.close()
    for writer in accepted:
        writer.close()
    server.close()
