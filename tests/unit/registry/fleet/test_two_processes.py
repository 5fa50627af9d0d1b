"""Two processes of the api share one registry."""

from __future__ import annotations

import multiprocessing
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from midstream.registry.engine import open_engine
from midstream.registry.fleet.commands import Commands
from midstream.registry.fleet.errors import FleetError
from midstream.settings import Settings

COMMANDS = 60


def work(home: str, registry: str, device: str, started: Queue[str], together: Any) -> None:
    """Fetch commands and do them, as a device does that asks this process."""
    engine = open_engine(Settings(home=Path(home), registry=registry))
    commands = Commands(engine)
    together.wait()
    while (command := commands.oldest(device)) is not None:
        try:
            commands.report(device, "in_progress", command_id=command.id)
        except FleetError:  # the other one was first
            continue
        started.put(command.id)
        commands.report(device, "done", command_id=command.id)
    engine.dispose()


def test_no_command_is_begun_twice(settings: Settings, engine: Engine, device: str) -> None:
    commands = Commands(engine)
    given = [commands.give(device, f"c{n}", {}).id for n in range(COMMANDS)]
    context = multiprocessing.get_context("spawn")
    started, together = context.Queue(), context.Barrier(2)
    arguments = (str(settings.home), settings.registry, device, started, together)
    processes = [context.Process(target=work, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    begun = [started.get(timeout=60) for _ in range(COMMANDS)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(begun) == sorted(given)
    assert started.empty()
    assert {one.status for one in commands.history(device)} == {"done"}
