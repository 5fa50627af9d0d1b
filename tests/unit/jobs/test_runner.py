"""Whatever ends a job in the middle, it is gone on with; and nobody goes on with what is another's."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from aiokafka.errors import KafkaConnectionError
from prometheus_client import REGISTRY

from midstream.clickhouse.client import ClickHouseError
from midstream.kafka.dimension_publisher import PublishError
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.sync.jobs import JobRow
from midstream.registry.sync.queue import MAX_ATTEMPTS, Queue
from serve.jobs.held import HeldJob
from tests.unit.jobs.conftest import Frame
from tests.unit.jobs.doubles import USER, row

CALLS = [
    *("has", "read", "add_gone", "block", "rows", "add", "finish", "note"),
    *("ends dimensions", "behind midstream-dimensions", "ends telemetry.valid", "behind midstream-store"),
    *("correct", "portion"),
]


class KilledError(BaseException):
    """As if the process were gone: nothing answers it."""


def prepare(frame: Frame) -> None:
    frame.world.put(row("u1", '{"a":1}'), row("u2"), row("u3"))
    frame.sources.given = [row("u1", '{"a":2}', 2), row("u4")]
    frame.sources.watermark = "version:2"
    frame.world.events = 2


def is_right(frame: Frame, job: JobRow) -> None:
    assert job.status == "done", job.error
    alive = {id_: one.attributes for (_, id_), one in frame.world.stored.items() if not one.deleted}
    assert alive == {"u1": '{"a":2}', "u4": "{}"}
    assert frame.watermarks.noted == "version:2"
    assert frame.corrects.asked[-1] == (USER, None)
    assert job.error is None


@pytest.mark.parametrize("name", CALLS)
class TestInEachStep:
    async def test_killed_it_is_begun_again_by_another(self, frame: Frame, name: str) -> None:
        prepare(frame)
        job_id = frame.create()
        frame.world.fails[name] = [KilledError()]
        with pytest.raises(KilledError):
            await asyncio.wait_for(frame.runner().run(), 20)
        assert frame.get(job_id).status == "running"
        frame.clock.after(31)
        is_right(frame, await frame.end(job_id))

    async def test_cancelled_it_ends(self, frame: Frame, name: str) -> None:
        prepare(frame)
        frame.world.events = 100
        job_id = frame.create()

        def cancel() -> None:
            frame.jobs.cancel(job_id)
            time.sleep(0.1)  # the lease is renewed beside it

        frame.world.hooks[name] = cancel
        job = await frame.end(job_id)
        assert job.status == "cancelled"
        assert job.changed.get("events", 0) < 100
        assert job.ended_at is not None

    async def test_told_to_stop_the_job_is_given_back(self, frame: Frame, name: str) -> None:
        prepare(frame)
        job_id = frame.create()
        runner = frame.runner()
        frame.world.hooks[name] = runner.stop
        await asyncio.wait_for(runner.run(), 20)
        job = frame.get(job_id)
        assert (job.status, job.attempts) in (("queued", 0), ("done", 0))
        is_right(frame, await frame.end(job_id))

    async def test_a_fault_of_the_program_ends_the_process_and_is_tried_again(self, frame: Frame, name: str) -> None:
        prepare(frame)
        job_id = frame.create()
        frame.world.fails[name] = [ZeroDivisionError("x")]
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(frame.runner().run(), 20)
        job = frame.get(job_id)
        assert (job.status, job.attempts) == ("queued", 1)
        assert job.error is not None
        assert "fault of the program" in job.error
        frame.clock.after(300)
        is_right(frame, await frame.end(job_id))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("rows", ClickHouseError("no answer from ClickHouse", None)),
        ("add", PublishError("Kafka did not acknowledge in time")),
        ("finish", PublishError("Kafka did not acknowledge in time")),
        ("note", RegistryUnavailable("locked")),
        ("correct", ClickHouseError("no answer from ClickHouse", None)),
        ("portion", ClickHouseError("no answer from ClickHouse", None)),
    ],
)
async def test_what_is_away_is_waited_for_and_is_no_attempt(frame: Frame, name: str, error: Exception) -> None:
    prepare(frame)
    job_id = frame.create()
    for _ in range(MAX_ATTEMPTS + 2):
        frame.world.fails[name] = [error]
        await frame.until(job_id, lambda _: not frame.world.fails[name])
        job = frame.get(job_id)
        assert (job.status, job.attempts, job.error) == ("queued", 0, str(error))
        frame.clock.after(300)
    is_right(frame, await frame.end(job_id))


@pytest.mark.parametrize("name", ["ends dimensions", "behind midstream-dimensions", "ends telemetry.valid"])
async def test_kafka_is_asked_again(frame: Frame, name: str) -> None:
    prepare(frame)
    frame.world.fails[name] = [KafkaConnectionError("away")] * 2
    is_right(frame, await frame.end(frame.create()))


async def test_what_clickhouse_refuses_is_an_attempt(frame: Frame) -> None:
    job_id = frame.create("u1")
    for number in range(MAX_ATTEMPTS):
        frame.world.fails["correct"] = [ClickHouseError("Code: 62. syntax error", 62)]
        await frame.until(job_id, lambda _: not frame.world.fails["correct"])
        job = frame.get(job_id)
        assert job.attempts == number + 1
        frame.clock.after(300)
    assert job.status == "failed"
    assert job.error == f"Code: 62. syntax error (given up after {MAX_ATTEMPTS} tries)"


class TestTheLease:
    async def test_it_is_renewed_while_a_step_takes_long(self, frame: Frame) -> None:
        frame.pace = replace(frame.pace, lease_s=1.0)
        frame.world.events = 1
        frame.world.hooks["portion"] = lambda: time.sleep(2.5)
        job = await frame.end(frame.create("u1"))
        assert (job.status, job.attempts, job.changed) == ("done", 0, {"events": 1})

    async def test_who_has_lost_it_does_nothing_more(self, frame: Frame) -> None:
        frame.world.events = 1_000
        job_id = frame.create("u1")
        runner = frame.runner()

        def take_away() -> None:
            frame.clock.after(31)
            claim = Queue(frame.engine, frame.clock).claim("another", 300)
            assert claim is not None
            time.sleep(0.2)

        frame.world.hooks["portion"] = take_away
        running = asyncio.create_task(runner.run())
        while not frame.world.count("portion"):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        portions = frame.world.count("portion")
        assert portions < 1_000
        runner.stop()
        await asyncio.wait_for(running, 20)
        job = frame.get(job_id)
        assert (job.status, job.attempts) == ("running", 2)  # the other's
        assert Queue(frame.engine, frame.clock).release(job_id, "another")
        frame.world.events = 2
        assert (await frame.end(job_id)).status == "done"

    async def test_without_a_registry_it_is_lost_when_its_time_is_up(
        self, frame: Frame, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frame.pace = replace(frame.pace, lease_s=0.5)
        frame.world.events = 10_000
        frame.create("u1")
        away: list[bool] = []
        renew = Queue.renew

        def renew_unless_away(self: Queue, *args: object) -> object:
            if away:
                raise RegistryUnavailable("away")
            return renew(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Queue, "renew", renew_unless_away)
        runner = frame.runner()
        frame.world.hooks["correct"] = lambda: away.append(True)
        running = asyncio.create_task(runner.run())
        async with asyncio.timeout(20):
            while not away:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
            await asyncio.sleep(1.0)
        assert frame.world.count("portion") < 1_000
        runner.stop()
        await asyncio.wait_for(running, 20)

    async def test_who_stood_still_goes_on_with_nothing(self, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
        job_id = frame.create("u1")
        held = HeldJob(frame.get(job_id), Queue(frame.engine), "a", lease_s=30)
        assert not held.should_stop()
        now = time.monotonic()
        monkeypatch.setattr("serve.jobs.held.time.monotonic", lambda: now + 30)
        assert held.should_stop()
        monkeypatch.setattr("serve.jobs.held.time.monotonic", lambda: now)
        assert held.should_stop()  # for good


class TestManyRunners:
    async def test_one_job_at_a_time_in_all(self, frame: Frame) -> None:
        frame.world.events = 5
        ids = [frame.create(f"u{number}") for number in range(8)]
        runners = [frame.runner() for _ in range(3)]
        running = [asyncio.create_task(one.run()) for one in runners]
        async with asyncio.timeout(30):
            while not all(frame.get(id_).is_ended for id_ in ids):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.02)
        for one in runners:
            one.stop()
        await asyncio.wait_for(asyncio.gather(*running), 20)
        assert {frame.get(id_).status for id_ in ids} == {"done"}
        assert sorted(asked[0] for _, asked in frame.corrects.asked if asked) == [f"u{number}" for number in range(8)]


async def test_a_registry_that_is_away_is_waited_for(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    is_any_due = Queue.is_any_due

    def away(self: Queue) -> bool:
        tries.append(1)
        if len(tries) < 3:
            raise RegistryUnavailable("locked")
        return is_any_due(self)

    monkeypatch.setattr(Queue, "is_any_due", away)
    assert (await frame.end(frame.create("u1"))).status == "done"
    assert len(tries) >= 3


async def test_an_end_that_cannot_be_noted_is_noted_later(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    finish = Queue.finish

    def away(self: Queue, *args: object) -> bool:
        tries.append(1)
        if len(tries) < 3:
            raise RegistryUnavailable("locked")
        return finish(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Queue, "finish", away)
    job = await frame.end(frame.create("u1"))
    assert (job.status, job.attempts) == ("done", 0)
    assert len(frame.corrects.asked) == 1


async def test_what_is_counted(frame: Frame) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    names = [
        ("midstream_sync_jobs_total", {"kind": "sync", "outcome": "done"}, 1.0),
        ("midstream_sync_rows_changed_total", {"table": "events"}, 3.0),
        ("midstream_sync_rows_changed_total", {"table": "dimensions"}, 1.0),
        ("midstream_sync_seconds_count", {"kind": "sync"}, 1.0),
    ]
    before = [value(name, **labels) for name, labels, _ in names]
    frame.world.events = 3
    frame.sources.given = [row("u1")]
    await frame.end(frame.create("u1"))
    assert [value(name, **labels) for name, labels, _ in names] == [
        was + more for was, (_, _, more) in zip(before, names, strict=True)
    ]
    assert value("midstream_sync_running") == 0


async def test_progress_is_shown_while_it_runs(frame: Frame) -> None:
    frame.world.events = 3
    job_id = frame.create("u1")
    seen: list[JobRow] = []

    def look() -> None:
        time.sleep(0.2)
        seen.append(frame.get(job_id))

    frame.world.hooks["portion"] = look
    await frame.end(job_id)
    assert (seen[0].status, seen[0].phase) == ("running", "correct")
