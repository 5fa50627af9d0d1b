import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError

from midstream.kafka.sealing import numbers_of, other_members, sign
from tests.unit.cli.conftest import Run

UUID = "0b6c3f2e-7a51-4a8e-9d15-3f1a2b3c4d5e"


@pytest.mark.parametrize("arguments", [("list",), ("grow", "8"), ("grow", "8", "--topic", "telemetry.raw")])
def test_kafka_away_is_said(run: Run, arguments: tuple[str, ...]) -> None:
    result = run("partitions", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Kafka at 127.0.0.1:")


@pytest.mark.parametrize("arguments", [("grow",), ("grow", "0"), ("grow", "x"), ("grow", "8", "--topic", "dimensions")])
def test_wrong_usage(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("partitions", *arguments).exit_code == 2


def test_members_say_under_how_many_partitions_they_seal() -> None:
    named = f"{sign('midstream-validate-local-1', 4)}-{UUID}"
    unnamed = f"{sign('midstream-validate', 12)}-{UUID}"
    old = f"midstream-validate-local-1-{UUID}"
    assert numbers_of([named, unnamed, old, "", f"worker-p3-{UUID}-x"]) == {named: 4, unnamed: 12}
    assert other_members([named, unnamed, old], 12) == [named]
    assert other_members([unnamed, old], 12) == []


def test_growth_waits_while_the_coordinator_cannot_tell(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from midstream.cli import partitions
    from midstream.kafka import admin

    answers = [GroupCoordinatorNotAvailableError(), [], [f"{sign('v', 4)}-{UUID}"], [f"{sign('v', 8)}-{UUID}"]]

    async def member_ids(*_: object) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def count(*_: object) -> dict[str, int]:
        return {"telemetry.valid": 8}

    def ask(_: object, question: Callable[[Any], Coroutine[Any, Any, Any]]) -> object:
        return asyncio.run(question(None))

    monkeypatch.setattr(admin, "member_ids", member_ids)
    monkeypatch.setattr(partitions, "_count", count)
    monkeypatch.setattr(partitions, "_ask", ask)
    monkeypatch.setattr(partitions, "_POLL_S", 0)
    monkeypatch.setattr(partitions, "_SAY_S", 0)
    result = run("partitions", "grow", "8")
    assert result.exit_code == 0, result.stderr
    said = [
        "has 8 partitions",
        "coordinator cannot tell",
        "waits for `store`",
        "1 validate worker(s) have not",
        "seal under 8",
    ]
    assert [text in line for text, line in zip(said, result.stderr.splitlines(), strict=True)] == [True] * 5
