"""What a worker that is told to stop leaves in its file of attempts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from midstream.settings import Settings
from processors import worker
from processors.attempts import Attempts


@dataclass(frozen=True)
class Record:
    partition: int = 0
    offset: int = 1
    value: bytes = b"v"


async def test_a_worker_that_was_told_to_stop_and_is_killed_then_died_of_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor kills it when its grace time is over; it was waiting for ClickHouse, and the wait is cancelled."""
    monkeypatch.setattr(worker, "_to_tell", [])
    app = worker.make_app(Settings(home=tmp_path), "s", "g", 1, 1)
    attempts = Attempts.in_memory()
    worker.tell_of_crash(attempts.close)
    lane = attempts.lane("t")
    waits = asyncio.Event()

    async def work() -> None:
        lane.begin(Record())
        with lane.waiting():
            waits.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(worker.or_crash("validate", work(), lane.failed))
    await waits.wait()
    await app.on_stop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(area.is_on for area in attempts._areas)
