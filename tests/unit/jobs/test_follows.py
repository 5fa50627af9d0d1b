"""How far a group is behind, as jobs wait for it."""

from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from midstream.settings import Settings
from serve.jobs import follows

TP = TopicPartition("telemetry.valid", 0)


@pytest.mark.parametrize(
    ("committed", "begin", "behind"),
    [
        ({TP: 7}, 0, 3),
        ({TP: 10}, 0, 0),
        ({}, 0, 10),
        ({}, 10, 0),  # never committed, and all is gone
        ({TP: 4}, 10, 0),  # all that it had not acknowledged is gone
        ({TP: 4}, 8, 2),
    ],
)
async def test_what_retention_has_deleted_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, committed: dict[TopicPartition, int], begin: int, behind: int
) -> None:
    class Consumer:
        async def beginning_offsets(self, of: list[TopicPartition]) -> dict[TopicPartition, int]:
            return dict.fromkeys(of, begin)

    async def certain_offsets(*_: Any) -> dict[TopicPartition, int]:
        return committed

    async def connected(_: Any) -> tuple[None, Consumer]:
        return None, Consumer()

    monkeypatch.setattr(follows, "certain_offsets", certain_offsets)
    monkeypatch.setattr(follows.GroupFollower, "_connect", connected)
    assert await follows.GroupFollower(Settings(kafka="nowhere:1")).behind("midstream-store", {TP: 10}) == behind
