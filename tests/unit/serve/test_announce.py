"""Stored writes come to Kafka at least once, whatever dies in between, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from midstream.assignments.rows import PlacedWrite, RecordKey, Write
from midstream.kafka.producer import Producer, ProducerUnavailable
from midstream.records import decode_record
from midstream.registry.academies.writers import Writers
from midstream.registry.engine import open_engine
from midstream.registry.migrate import migrate
from midstream.settings import Settings
from serve.assignments import announce
from serve.assignments.announce import Announcer

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Kafka(Producer):
    """Keeps what it acknowledged; one producer, whose broker may be away or silent."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.away = False
        self.silent = False
        self.stalled = False

    async def start(self) -> None:
        """Be there."""

    async def stop(self, timeout_s: float) -> None:
        """Be gone."""

    @property
    def ready(self) -> bool:
        return not self.away

    def life(self) -> Any:
        if self.away:
            raise ProducerUnavailable("away")
        return self

    def partitions(self, topic: str) -> int:
        assert topic == "assignment.telemetry"
        return 2

    async def hand_over(
        self, topic: str, partition: int, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> asyncio.Future[Any]:
        delivery: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.silent:
            self.versions.append(decode_record(topic, value)["version"])
            delivery.set_result(None)
        return delivery

    def stall(self) -> None:
        self.stalled = True


class Stored:
    """The rows of ClickHouse: of each life, its inserts."""

    def __init__(self) -> None:
        self.inserts: dict[str, dict[int, list[PlacedWrite]]] = {}

    def put(self, writer: str, batch: int, placed: list[PlacedWrite]) -> None:
        self.inserts.setdefault(writer, {})[batch] = placed

    def read_written(self, _: object, writer: str, *, after: int, inserts: int) -> list[tuple[int, PlacedWrite]]:
        of_life = self.inserts.get(writer, {})
        batches = sorted(batch for batch in of_life if batch > after)[:inserts]
        return [(batch, one) for batch in batches for one in of_life[batch]]


def placed(version: int, size: int = 1) -> PlacedWrite:
    write = Write(RecordKey(1, "a/b", 2), 9, {"telemetry": b'"' + b"x" * size + b'"', "completion_rate": None})
    return PlacedWrite(write, 7, version, NOW, NOW)


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Stored:
    made = Stored()
    monkeypatch.setattr(announce, "read_written", made.read_written)
    monkeypatch.setattr(announce, "_TELL_S", 0.05)
    monkeypatch.setattr(announce, "_SWEEP_S", 0.05)
    monkeypatch.setattr(announce, "_RETRY_S", 0.02)
    monkeypatch.setattr(announce, "_SILENT_S", -0.5)  # beside a second for ClickHouse
    return made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path, clickhouse_timeout_ms=1_000, kafka_timeout_ms=500)
    migrate(made)
    return made


@pytest.fixture
def writers(settings: Settings) -> Writers:
    return Writers(open_engine(settings))


@asynccontextmanager
async def process(settings: Settings, kafka: Kafka, writers: Writers) -> AsyncIterator[Announcer]:
    """Another process of the api."""

    def no_rows(*_: object) -> Any:
        raise AssertionError("rows are read by read_written alone")

    announcer = Announcer(settings, kafka, writers, no_rows)
    await announcer.start()
    try:
        yield announcer
    finally:
        await announcer.close()


async def write(announcer: Announcer, stored: Stored, *versions: int, size: int = 1) -> None:
    """Make one insert, as a thread does."""

    def insert() -> None:
        with announcer.insert() as one:
            one.begin()
            rows = [placed(version, size) for version in versions]
            stored.put(one.writer, one.batch, rows)
            one.stored(rows)

    await asyncio.to_thread(insert)


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  what it waits for has no event
            await asyncio.sleep(0.01)


def lives(writers: Writers) -> dict[str, int]:
    return {one.id: one.published for one in writers.abandoned(datetime.now(UTC) + timedelta(days=1))}


async def test_what_is_stored_is_published_and_a_stop_leaves_nothing(
    settings: Settings, kafka: Kafka, writers: Writers, stored: Stored
) -> None:
    async with process(settings, kafka, writers) as announcer:
        await write(announcer, stored, 1, 2)
        await write(announcer, stored, 3)
        await until(lambda: kafka.versions == [1, 2, 3])
        await until(lambda: list(lives(writers).values()) == [2])
    assert lives(writers) == {}


async def test_whoever_writes_nothing_leaves_no_trace(
    settings: Settings, kafka: Kafka, writers: Writers, stored: Stored
) -> None:
    async with process(settings, kafka, writers):
        await asyncio.sleep(0.2)
        assert lives(writers) == {}


async def test_while_kafka_is_away_writes_wait_and_come_in_order(
    settings: Settings, kafka: Kafka, writers: Writers, stored: Stored
) -> None:
    kafka.away = True
    async with process(settings, kafka, writers) as announcer:
        for version in range(1, 6):
            await write(announcer, stored, version)
        await asyncio.sleep(0.1)
        assert kafka.versions == []
        kafka.away = False
        await until(lambda: kafka.versions == [1, 2, 3, 4, 5])


async def test_without_an_acknowledgement_it_is_sent_again(
    settings: Settings, kafka: Kafka, writers: Writers, stored: Stored
) -> None:
    kafka.silent = True
    async with process(settings, kafka, writers) as announcer:
        await write(announcer, stored, 1)
        await until(lambda: kafka.stalled)
        kafka.silent = False
        await until(lambda: kafka.versions == [1])


async def test_what_a_process_left_that_was_killed_another_publishes(
    settings: Settings, kafka: Kafka, writers: Writers, stored: Stored
) -> None:
    died = Kafka()
    async with process(settings, died, writers) as announcer:
        await write(announcer, stored, 1)
        await until(lambda: list(lives(writers).values()) == [1])
        died.away = True
        for version in range(2, 8):
            await write(announcer, stored, version)
        for task in announcer._tasks:
            task.cancel()
        announcer._life.told = None  # it does not get to say anything
    async with process(settings, kafka, writers), process(settings, kafka, writers):
        await until(lambda: lives(writers) == {})
        assert kafka.versions == [2, 3, 4, 5, 6, 7], "by one of two"
    assert died.versions == [1]


async def test_an_insert_whose_outcome_is_unknown_is_published_if_it_was_stored(
    settings: Settings, kafka: Kafka, writers: Writers, stored: Stored
) -> None:
    async with process(settings, kafka, writers) as announcer:

        def insert(version: int, *, is_stored: bool) -> None:
            with suppress(ValueError), announcer.insert() as one:
                one.begin()
                if is_stored:
                    stored.put(one.writer, one.batch, [placed(version)])
                raise ValueError("the answer was lost")

        await write(announcer, stored, 1)
        await asyncio.to_thread(insert, 2, is_stored=True)
        await write(announcer, stored, 3)
        await asyncio.to_thread(insert, 4, is_stored=False)
        await write(announcer, stored, 5)
        await until(lambda: len(lives(writers)) == 1)
        assert set(kafka.versions) == {1, 2, 3, 5}
    assert lives(writers) == {}


async def test_what_failed_before_it_was_sent_holds_nothing_up(
    settings: Settings, kafka: Kafka, writers: Writers, stored: Stored
) -> None:
    async with process(settings, kafka, writers) as announcer:
        with suppress(ValueError), announcer.insert():
            raise ValueError("the registry was away")
        await write(announcer, stored, 1)
        await until(lambda: list(lives(writers).values()) == [2])


async def test_more_than_is_held_is_read_from_clickhouse_later(
    settings: Settings, kafka: Kafka, writers: Writers, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "MAX_WAITING_BYTES", 5_000)
    kafka.away = True
    async with process(settings, kafka, writers) as announcer:
        for version in range(1, 21):
            await write(announcer, stored, version, size=1_000)
        await until(lambda: announcer._behind)
        assert announcer._queue_bytes <= 5_000
        kafka.away = False
        await until(lambda: set(kafka.versions) == set(range(1, 21)))
        await write(announcer, stored, 21)
        await until(lambda: 21 in kafka.versions)
        await until(lambda: len(lives(writers)) == 1)


async def test_a_process_that_stood_still_begins_anew(
    settings: Settings, kafka: Kafka, writers: Writers, stored: Stored
) -> None:
    async with process(settings, kafka, writers) as announcer:
        await write(announcer, stored, 1)
        (life,) = writers.abandoned(datetime.now(UTC) + timedelta(days=1))
        while not writers.claim(life.id, life.seen_at, datetime.now(UTC)):
            (life,) = writers.abandoned(datetime.now(UTC) + timedelta(days=1))
        await until(lambda: announcer._life.name != life.id)
        await write(announcer, stored, 2)
        await until(lambda: 2 in kafka.versions)
        assert life.id not in {one for one in lives(writers) if one == announcer._life.name}
