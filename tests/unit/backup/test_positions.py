"""Whether a partition is the one that a backup has seen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from aiokafka.structs import TopicPartition

from midstream.backup import positions
from midstream.backup.manifest import KafkaPart, Position, Seen
from midstream.backup.positions import READERS, SetBack, _is_same, set_back
from midstream.settings import Settings
from midstream.topics import ALL, ASSIGNMENT, COLLECTORS, GROUP_DIMENSIONS, GROUP_STORE, GROUP_VALIDATE, SCHEMAS

SETTINGS = Settings(kafka="nowhere:1")
SEEN = Seen("telemetry.raw", 0, begin=10, end=20, last_at_ms=1_000)


class Place(NamedTuple):
    offset: int
    timestamp: int


@dataclass
class Log:
    """A partition, as its records' offsets and append times."""

    records: list[Place]

    async def offsets_for_times(self, wanted: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        [(tp, at_ms)] = wanted.items()
        return {tp: next((place for place in self.records if place.timestamp >= at_ms), None)}


@pytest.mark.parametrize(
    ("log", "begin", "end", "same"),
    [
        ([Place(19, 1_000), Place(20, 1_500)], 10, 21, True),
        ([Place(18, 1_000), Place(19, 1_000)], 12, 20, True),  # two of one moment
        ([Place(30, 9_000)], 30, 31, True),  # all of then was deleted by retention
        ([Place(19, 1_001)], 10, 20, False),  # appended at another time
        ([Place(25, 1_000)], 0, 26, False),  # begins before, so it was made anew
        ([Place(5, 2_000)], 0, 6, False),
        ([], 0, 0, False),
    ],
)
async def test_a_topic_made_anew_is_told_from_the_one_of_the_backup(
    log: list[Place], begin: int, end: int, same: bool
) -> None:
    assert await _is_same(SETTINGS, Log(log), SEEN, begin, end) is same


async def test_a_partition_that_was_empty_is_the_same_while_it_only_grew() -> None:
    empty = Seen("telemetry.dead", 0, 0, 0, 0)
    assert await _is_same(SETTINGS, Log([Place(0, 5)]), empty, 0, 1)


def test_every_topic_that_clickhouse_is_made_from_is_read_again() -> None:
    """Records of learners are replayed by themselves; what collectors promise and how records are
    written is read whole."""
    read = {topic.name for of in READERS.values() for topic in of}
    assert read == {topic.name for topic in ALL} - {ASSIGNMENT.name, COLLECTORS.name, SCHEMAS.name}


@dataclass
class Kafka:
    """Bounds by topic, each of one partition; what a group has committed stays as it was told."""

    bounds: dict[str, tuple[int, int]]
    anew: set[str] = field(default_factory=set)
    offsets: dict[str, dict[str, int]] = field(default_factory=dict)

    async def set_back(self, patch: pytest.MonkeyPatch, then: KafkaPart) -> SetBack:
        @asynccontextmanager
        async def kafka(*_: Any) -> AsyncIterator[tuple[None, None]]:
            yield None, None

        async def partitions(_: Any, of: Any) -> list[TopicPartition]:
            return [TopicPartition(topic.name, 0) for topic in of if topic.name in self.bounds]

        async def bounds(_s: Any, _c: Any, of: list[TopicPartition]) -> tuple[dict[Any, int], dict[Any, int]]:
            return {tp: self.bounds[tp.topic][0] for tp in of}, {tp: self.bounds[tp.topic][1] for tp in of}

        async def is_same(_s: Any, _c: Any, seen: Seen, *_: int) -> bool:
            return seen.topic not in self.anew

        async def commit(_: Any, group: str, offsets: dict[TopicPartition, int]) -> None:
            self.offsets[group] = {tp.topic: offset for tp, offset in offsets.items()}

        async def committed(_: Any, group: str, of: list[TopicPartition]) -> dict[TopicPartition, int]:
            return {tp: self.offsets[group][tp.topic] for tp in of}

        for name, double in (
            ("_kafka", kafka),
            ("_partitions", partitions),
            ("_bounds", bounds),
            ("_is_same", is_same),
            ("_commit", commit),
            ("_committed", committed),
        ):
            patch.setattr(positions, name, double)
        return await set_back(SETTINGS, then)


THEN = KafkaPart(
    [Seen("telemetry.raw", 0, 0, 9, 7), Seen("telemetry.valid", 0, 0, 50, 7), Seen("dimensions", 0, 0, 5, 0)],
    [Position(GROUP_STORE, "telemetry.valid", 0, 40), Position(GROUP_DIMENSIONS, "dimensions", 0, 5)],
)


async def test_readers_go_on_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka({"telemetry.raw": (0, 20), "telemetry.valid": (0, 60), "dimensions": (0, 6)})
    found = await kafka.set_back(monkeypatch, THEN)
    assert (found.records, found.gone, found.other) == (20 + 20 + 1, {}, [])
    assert kafka.offsets[GROUP_STORE] == {"telemetry.valid": 40}
    assert kafka.offsets[GROUP_DIMENSIONS] == {"dimensions": 5}
    assert GROUP_VALIDATE not in kafka.offsets


async def test_a_reader_is_never_set_before_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where retention has deleted all, it would read nothing, commit nothing and look behind for ever."""
    kafka = Kafka({"telemetry.raw": (0, 20), "telemetry.valid": (60, 60), "dimensions": (0, 6)})
    found = await kafka.set_back(monkeypatch, THEN)
    assert kafka.offsets[GROUP_STORE] == {"telemetry.valid": 60}
    assert found.gone == {"telemetry.valid": 20}


async def test_of_topics_made_anew_all_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compacted one is taken for another, too: it may have grown beyond the one of then."""
    kafka = Kafka({"telemetry.raw": (0, 20), "telemetry.valid": (0, 60), "dimensions": (0, 6)}, {"telemetry.raw"})
    found = await kafka.set_back(monkeypatch, THEN)
    assert found.other == ["dimensions", "telemetry.raw"]
    assert kafka.offsets[GROUP_DIMENSIONS] == {"dimensions": 0}


async def test_what_validate_did_is_done_again_where_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka({"telemetry.raw": (3, 20), "telemetry.valid": (0, 1), "dimensions": (0, 6)}, {"telemetry.valid"})
    found = await kafka.set_back(monkeypatch, THEN)
    assert kafka.offsets[GROUP_VALIDATE] == {"telemetry.raw": 3}
    assert kafka.offsets[GROUP_STORE] == {"telemetry.valid": 0}
    assert found.gone == {"telemetry.raw": 3}  # of the receipts alone
