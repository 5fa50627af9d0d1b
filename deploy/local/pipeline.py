"""A pipeline on this machine: its start, step by step, and its stop."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deploy.local import broker, jars, orphans
from deploy.local.errors import LocalError
from deploy.local.home import Home, HomeLock, open_home, write_private, write_ready
from deploy.local.ports import check_ports
from deploy.local.stores import demo_token, prepare_stores
from deploy.local.supervision import Supervision, programs_of
from deploy.local.supervisor_client import SupervisorGoneError
from deploy.local.waiting import POLL_S, Flag, Waiter, http_get
from deploy.local.watch import Watch, tail
from midstream.clickhouse.client import parse_dsn
from midstream.settings import Settings

READY_TIMEOUT_S = 90.0
"""Longest wait for the base URL to be ready once Kafka and ClickHouse are."""

WORKERS = ("validate", "store", "devices", "jobs")

_ANSWERS_PER_WORKER = 4
_LOOK_INTERVAL_S = 0.5
_KILL_TIMEOUT_S = 5.0


def facts_of(settings: Settings, home: Home) -> dict[str, Any]:
    """Return what other programs may know of a pipeline; no secret is in it.

    Raises:
        SettingsError: the ClickHouse DSN is malformed.
    """
    return {
        "pid": os.getpid(),
        "base_url": settings.base_url,
        "kafka": settings.kafka_servers,
        "clickhouse": without_credentials(settings.clickhouse_dsn),
        "token_file": str(home.token),
        "logs": str(home.logs),
        "supervisor": str(home.socket),
    }


def without_credentials(clickhouse_dsn: str) -> str:
    """Return a ClickHouse DSN without user and password.

    Raises:
        SettingsError: it is malformed.
    """
    dsn = parse_dsn(clickhouse_dsn)
    host = f"[{dsn.host}]" if ":" in dsn.host else dsn.host
    return f"{dsn.interface}://{host}:{dsn.port}/{quote(dsn.database, safe='')}"


class LocalPipeline:
    """All processes of Midstream, and Kafka and ClickHouse unless settings name others, on one home."""

    def __init__(self, settings: Settings, say: Callable[[str], None], stop: Flag) -> None:
        """Take the home. ``say`` tells the user one thing; ``stop``, once set, ends a start under way.

        Raises:
            LocalError: the home cannot be used, or is in use.
        """
        self._say = say
        self._stop = stop
        self._home: Home = open_home(settings.home)
        self.settings = settings.model_copy(update={"home": self._home.root})
        self._lock = HomeLock(self._home)
        self._supervision: Supervision | None = None
        self._watch: Watch | None = None
        self._looked_at = 0.0

    def start(self) -> dict[str, Any]:
        """Start everything and wait until it is ready; return the facts that ``ready.json`` has.

        Raises:
            LocalError: it cannot become ready; what was started is still to be stopped.
            StopRequestedError: ``stop`` was set.
        """
        settings, home = self.settings, self._home
        waiter = Waiter(self._stop)
        home.ready.unlink(missing_ok=True)
        orphans.end_orphans(home, self._say)
        check_ports(settings)
        if not settings.kafka:
            jars.ensure_jars(self._say, waiter)
            broker.format_storage(settings, home, self._say, waiter)
        self._supervision = Supervision(home, programs_of(settings), orphans.run_environment(os.environ, home))
        self._watch = Watch(self._supervision, self._say, self._end_group)
        stores = [
            name for name, elsewhere in (("kafka", settings.kafka), ("engine", settings.clickhouse)) if not elsewhere
        ]
        self._say(f"Starting {', '.join([*stores, *WORKERS, 'web'])}; logs in {home.logs}")
        for name in stores:
            self._supervision.start(name)
        prepare_stores(settings, self._stop, self.look)
        for name in (*WORKERS, "web"):
            self._supervision.start(name)
        write_private(home.token, demo_token(settings) + "\n")
        self._wait_until_ready(waiter)
        facts = facts_of(settings, home)
        write_ready(home, facts)
        return facts

    def look(self) -> None:
        """Look after the processes, at most twice a second: see :class:`deploy.local.watch.Watch`.

        Raises:
            LocalError: the supervisor has ended or does not answer.
        """
        now = time.monotonic()
        if self._watch is not None and now - self._looked_at >= _LOOK_INTERVAL_S:
            self._looked_at = now
            self._watch.look()

    def stop(self, hurry: Flag) -> None:
        """Stop everything in order and give the home back; ``hurry``, once set, kills what still runs.

        Every wait has a time limit, and nothing is left behind, whatever state it was in.
        """
        self._home.ready.unlink(missing_ok=True)
        if self._supervision is not None:
            self._say("Stopping (Ctrl-C again: at once)")
            self._supervision.begin_stop()
            deadline = time.monotonic() + self._supervision.stop_limit_s
            while not self._supervision.ended() and time.monotonic() < deadline:
                if hurry.is_set():
                    self._supervision.kill_processes()
                # supervisord looks after its processes once a second, and whenever it is asked something.
                with contextlib.suppress(SupervisorGoneError):
                    self._supervision.processes()
                time.sleep(POLL_S)
            self._supervision.kill()
            left = orphans.find_processes(self._home)
            orphans.end_processes(left, signal.SIGKILL, _KILL_TIMEOUT_S)
            self._say("Stopped; the data is kept")
        self._lock.release()

    def _wait_until_ready(self, waiter: Waiter) -> None:
        last = (0, "")
        in_a_row = 0

        def ready() -> bool:
            nonlocal last, in_a_row
            self.look()
            last = http_get(self.settings.host, self.settings.port, "/ready")
            in_a_row = in_a_row + 1 if last[0] == 200 else 0
            # Each answer is that of one of web's workers, of which another may still be behind.
            return in_a_row >= _ANSWERS_PER_WORKER * self.settings.web_workers

        if waiter.until(ready, READY_TIMEOUT_S):
            return
        status, body = last
        answer = f"/ready answers {status}: {body.strip()[:500]}" if status else "/ready does not answer"
        raise LocalError(f"not ready after {READY_TIMEOUT_S:.0f} s: {answer}{self._last_words()}")

    def _last_words(self) -> str:
        """What the logs of those that do not run end with."""
        assert self._supervision is not None  # noqa: S101 - start() made it
        return "".join(
            f"\n  {info.name} ({info.state}), {info.log}:" + "".join(f"\n    {line}" for line in tail(Path(info.log)))
            for info in self._supervision.processes().values()
            if info.state != "RUNNING"
        )

    def _end_group(self, leader: int) -> None:
        """A process that was killed may leave its own behind, which hold its ports (the workers of web)."""
        left = orphans.find_processes(self._home, group=leader)
        orphans.end_processes(left, signal.SIGKILL, _KILL_TIMEOUT_S)
