"""A validator's start on a machine that is slow at everything, and with a Kafka that never answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from midstream import topics
from midstream.settings import Settings
from processors.attempts import Attempts
from processors.lease import Lease
from processors.validate import agent
from processors.validate.agent import Validator

_STEP_S = 1.0


class SlowProducer:
    def __init__(self, **_: Any) -> None: ...

    async def start(self) -> None:
        await asyncio.sleep(_STEP_S)

    async def partitions_for(self, _topic: str) -> set[int]:
        return {0, 1}


async def nothing(*_: object) -> None: ...


@pytest.fixture
def validator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Validator:
    settings = Settings(home=tmp_path, kafka_timeout_ms=int(_STEP_S * 1800))
    monkeypatch.setattr(agent, "AIOKafkaProducer", SlowProducer)
    monkeypatch.setattr(agent, "check_older", nothing)
    made = Validator(settings, Attempts.open(settings, topics.GROUP_VALIDATE), Lease(60_000))
    made.expected_partitions = 2
    return made


async def test_connecting_and_announcing_have_a_time_limit_each(
    validator: Validator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def announce(*_: object) -> None:
        await asyncio.sleep(_STEP_S)

    monkeypatch.setattr(agent, "announce", announce)
    await validator.start()
    assert validator.connected


async def test_announcing_does_not_wait_for_ever(validator: Validator, monkeypatch: pytest.MonkeyPatch) -> None:
    async def announce(*_: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(agent, "announce", announce)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(validator.start(), 60)
