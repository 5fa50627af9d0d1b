"""Erased users who are found again are erased again, and workers are told of digests that were forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from midstream.clickhouse.client import ClickHouseError
from midstream.dimensions import Dimension
from midstream.registry.engine import open_engine
from midstream.registry.migrate import migrate
from midstream.registry.sync.jobs import Jobs
from midstream.settings import Settings
from serve.jobs.recheck import Recheck


class World:
    """Users erased by their ids (a digest is "d-" and the id), what ClickHouse has, what was published."""

    def __init__(self) -> None:
        self.erased: list[str] = []
        self.told: list[str] = []
        self.stored: list[str] = []
        self.published: list[Dimension] = []
        self.away = False

    def digests(self, type_: str) -> set[str]:
        assert type_ == "user"
        return {f"d-{id_}" for id_ in self.erased}

    def among(self, type_: str, ids: Sequence[str]) -> set[str]:
        assert len(ids) <= 5_000
        return set(ids) & set(self.erased)

    async def publish(self, row: Dimension) -> None:
        self.published.append(row)

    def lines(self, sql: str) -> Iterator[bytes]:
        if self.away:
            raise ClickHouseError("away", None)
        ids = self.told if "erased" in sql else self.stored
        text = "".join(json.dumps([id_]) + "\n" for id_ in ids).encode()
        for start in range(0, len(text), 7):
            yield text[start : start + 7]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    settings = Settings(home=tmp_path)
    migrate(settings)
    engine = open_engine(settings)
    yield Jobs(engine)
    engine.dispose()


@pytest.fixture
def recheck(world: World, jobs: Jobs) -> Recheck:
    return Recheck(world, jobs, world, world.lines)  # type: ignore[arg-type]


def erasures(jobs: Jobs) -> list[Sequence[str] | None]:
    listed = jobs.page(limit=100)
    assert {job.kind for job in listed} <= {"erase"}
    return sorted(jobs.ids_of(job.id) or () for job in listed)


async def test_nobody_is_looked_for_when_nobody_was_erased(recheck: Recheck, world: World, jobs: Jobs) -> None:
    world.away = True
    assert await recheck.look()
    assert erasures(jobs) == []


async def test_who_is_stored_again_is_erased_again(recheck: Recheck, world: World, jobs: Jobs) -> None:
    world.erased, world.told = ["ann", 'b"\n'], ["d-ann", 'd-b"\n']
    world.stored = [f"u-{number}" for number in range(7_000)] + ["ann", 'b"\n']
    assert await recheck.look()
    assert [list(ids or ()) for ids in erasures(jobs)] == [["ann"], ['b"\n']]
    assert await recheck.look()
    assert len(erasures(jobs)) == 2
    assert world.published == []


async def test_who_comes_back_soon_after_an_erasure_is_erased_once_more(
    recheck: Recheck, world: World, jobs: Jobs
) -> None:
    """As with a backup that is restored in several steps."""
    world.erased, world.told, world.stored = ["ann"], ["d-ann"], ["ann"]
    for number in range(1, 4):
        assert await recheck.look()
        assert await recheck.look()
        listed = jobs.page(limit=100)
        assert len(listed) == number
        (waiting,) = [job for job in listed if not job.is_ended]
        jobs.cancel(waiting.id)


async def test_workers_are_told_of_what_clickhouse_forgot(recheck: Recheck, world: World, jobs: Jobs) -> None:
    world.erased, world.told = ["ann", "bob"], ["d-bob"]
    assert await recheck.look()
    assert [(row.type, row.id) for row in world.published] == [("erased", "d-ann")]
    assert erasures(jobs) == []


async def test_what_does_not_answer_is_asked_again(recheck: Recheck, world: World) -> None:
    world.erased = ["ann"]
    world.away = True
    assert not await recheck.look()
    world.away = False
    assert await recheck.look()
