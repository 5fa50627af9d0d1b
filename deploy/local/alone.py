"""Kafka and the ClickHouse engine of a home without the rest of the pipeline: for a backup of one that is stopped, and
for a restore, which nothing else may run beside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from deploy.local import broker, jars, orphans
from deploy.local.errors import LocalError
from deploy.local.home import Home, HomeLock, open_home
from deploy.local.waiting import Flag, Waiter, http_get, listens
from midstream.settings import Settings

_UP_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_KILL_TIMEOUT_S = 5.0
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_MODULES = {"engine": "deploy.local.engine", "kafka": "deploy.local.broker"}


@contextlib.contextmanager
def stores_alone(settings: Settings, say: Callable[[str], None], *, beside: bool) -> Iterator[None]:
    """Hold the home, and run those of the two that the settings do not name elsewhere. Nothing is left of them.

    ``beside``: where a pipeline runs on the home, its own will do; else that is refused, and what an earlier run left
    is ended, as by ``make run``.

    Raises:
        LocalError: a pipeline runs here, or one of them does not start.
    """
    elsewhere = {"kafka": settings.kafka, "engine": settings.clickhouse}
    names = [name for name, where in elsewhere.items() if not where]
    if not names:
        yield
        return
    home = open_home(settings.home)
    try:
        lock = HomeLock(home)
    except LocalError:
        if not beside:
            raise
        yield
        return
    processes: list[subprocess.Popen[bytes]] = []
    before = _end_as_by_ctrl_c()
    try:
        if not beside:
            orphans.end_orphans(home, say)
        elif orphans.find_processes(home):
            yield
            return
        waiter = Waiter(Flag())
        if "kafka" in names:
            jars.ensure_jars(say, waiter)
            broker.format_storage(settings, home, say, waiter)
        say(f"Starting {' and '.join(names)} alone; logs in {home.logs}")
        environment = orphans.run_environment(os.environ, home)
        processes += [_start(name, environment, home) for name in names]
        _wait_up(settings, names, processes, waiter)
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)
        for process in processes:
            process.kill()  # nothing happens to one that has ended
            process.wait(_KILL_TIMEOUT_S)
        for number, handler in before.items():
            signal.signal(number, handler)
        lock.release()


def _end_as_by_ctrl_c() -> dict[signal.Signals, Any]:
    """Have a signal that ends this process stop first what it started; return what the signals did before."""
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)
    return before


def _start(name: str, environment: Mapping[str, str], home: Home) -> subprocess.Popen[bytes]:
    with (home.logs / f"{name}.log").open("ab") as log:
        # A session of its own: Ctrl-C is for the command, which stops them in order.
        return subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", _MODULES[name]],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_up(settings: Settings, names: list[str], processes: list[subprocess.Popen[bytes]], waiter: Waiter) -> None:
    def is_up(name: str) -> bool:
        if any(process.poll() is not None for process in processes):
            raise LocalError(f"{' or '.join(names)} ended at once: see its log in {settings.home / 'logs'}")
        if name == "kafka":
            return listens(settings.local_kafka_port)
        return http_get("127.0.0.1", settings.local_clickhouse_port, "/ping")[0] == 200

    for name in names:
        if not waiter.until(lambda name=name: is_up(name), _UP_TIMEOUT_S):  # type: ignore[misc]
            raise LocalError(f"{name} does not answer after {_UP_TIMEOUT_S:.0f} s")
