"""The faults, each with the one alert that must name it.

They are in this order, for a cause keeps its consequences quiet until five minutes after it ended
(``midstream:away:explains`` in deploy/prometheus): those that explain most come last.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import httpx

from tests.chaos.world import BROKER, ENGINE, World

SPOOL_BYTES = 256 * 1024 * 1024
"""Size of the small file system that the spool is on."""

_LEFT_BYTES = SPOOL_BYTES // 50
_BAD_EVENTS_S = 60
_BATCH_EVENTS = 20
_REPLY_S = 20.0


@dataclass(frozen=True)
class Fault:
    """Something that is broken while its context lasts."""

    name: str
    alert: str
    inject: Callable[[World], AbstractContextManager[None]]
    labels: dict[str, str] = field(default_factory=dict)
    """Which the alert must have, as they say what is broken."""
    needs_mount: bool = False


@contextmanager
def disk_nearly_full(world: World) -> Iterator[None]:
    """Something else fills the disk of the spool, but for a fiftieth."""
    ballast = world.settings.spool_folder / "ballast"
    free = os.statvfs(ballast.parent)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - _LEFT_BYTES)
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def bad_release(world: World) -> Iterator[None]:
    """An app's new release leaves the level out of its logs."""
    over = threading.Event()
    error: list[BaseException] = []

    def send() -> None:
        headers = {"Authorization": f"Bearer {world.token}"}
        url = f"http://127.0.0.1:{world.settings.port}/v1/telemetry"
        try:
            with httpx.Client(timeout=_REPLY_S, trust_env=False, headers=headers) as client:
                while not over.wait(_BATCH_EVENTS / _BAD_EVENTS_S):
                    client.post(url, json=_bad_batch()).raise_for_status()
        except httpx.HTTPError as problem:
            error.append(problem)

    thread = threading.Thread(target=send, name="bad-release")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_REPLY_S)
    assert not error, f"the bad release could not send: {error[0]!r}"


def _bad_batch() -> dict[str, object]:
    now_ms = time.time_ns() // 1_000_000
    events = [
        {
            "eid": "LOG",
            "ets": now_ms,
            "ver": "3.0",
            "mid": f"LOG:{uuid.uuid4().hex}",
            "actor": {"id": "u", "type": "User"},
            "context": {"channel": "new-release", "env": "e"},
            "edata": {"type": "t", "message": "m"},
        }
        for _ in range(_BATCH_EVENTS)
    ]
    return {"id": "api.telemetry", "ver": "3.0", "events": events}


@contextmanager
def validate_ends(world: World) -> Iterator[None]:
    """The one worker of ``validate`` is stopped."""
    world.keeper.stop("validate-0")
    try:
        yield
    finally:
        world.keeper.start("validate-0")


@contextmanager
def clickhouse_hangs(world: World) -> Iterator[None]:
    """ClickHouse takes connections and answers nothing."""
    world.keeper.freeze(ENGINE)
    try:
        yield
    finally:
        world.keeper.thaw(ENGINE)


@contextmanager
def kafka_stops(world: World) -> Iterator[None]:
    """Kafka is stopped."""
    world.keeper.stop(BROKER)
    try:
        yield
    finally:
        world.keeper.start(BROKER)


FAULTS = (
    Fault("disk_nearly_full", "MidstreamDiskSpaceLow", disk_nearly_full, needs_mount=True),
    Fault("bad_release", "MidstreamDeadLettersRising", bad_release, {"reason": "SCHEMA_VIOLATION"}),
    Fault("validate_ends", "MidstreamProcessDown", validate_ends, {"job": "midstream-validate"}),
    Fault("clickhouse_hangs", "MidstreamClickHouseAway", clickhouse_hangs),
    Fault("kafka_stops", "MidstreamKafkaAway", kafka_stops),
)
