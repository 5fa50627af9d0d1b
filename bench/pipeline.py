"""A pipeline of the bench's own: ``python -m deploy.local`` on free ports, in a home that is removed afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from bench.mix import dimension_rows
from deploy.local.home import Home
from deploy.local.orphans import RUN_HOME, end_orphans, end_processes, find_processes
from deploy.local.supervisor_client import SupervisorClient
from midstream import topics
from midstream.kafka.groups import GroupStates
from midstream.registry.credentials import Credentials
from midstream.settings import Settings

ROOT = Path(__file__).resolve().parents[1]

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 90.0
_POLL_S = 0.1
_HTTP_TIMEOUT_S = 60.0
_JOIN_TIMEOUT_S = 120.0
# Below the range from which systems take the ports of outgoing connections (Linux: from 32768).
_PORTS = range(20_000, 32_000)
_PORT_SETTINGS = (
    "port",
    "local_kafka_port",
    "local_kafka_controller_port",
    "local_clickhouse_port",
    "validate_metrics_port",
    "store_metrics_port",
    "devices_metrics_port",
    "jobs_metrics_port",
)


class BenchError(Exception):
    """The bench cannot go on; the message says why."""


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now, all different."""
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(_PORTS, len(_PORTS)):
            if len(found) == count:
                break
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", port))
                found.append(port)
    return found


@contextmanager
def bench_folder(folder: Path) -> Iterator[Path]:
    """Hold a folder for one bench at a time, and end and remove what an earlier one that was killed left in it.

    Raises:
        BenchError: another bench runs there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"a bench runs in {folder} already") from None
        _clear(folder / "home")
        try:
            yield folder
        finally:
            _clear(folder / "home")


def _clear(root: Path) -> None:
    home = Home(Path(os.path.realpath(root)))
    if not home.root.exists():
        return
    _end_launcher(home)
    end_orphans(home, lambda text: print(text, file=sys.stderr))
    if home.socket.parent != home.run:  # a folder of its own where the home's path is long
        shutil.rmtree(home.socket.parent, ignore_errors=True)
    shutil.rmtree(home.root)


def _end_launcher(home: Home) -> None:
    """End the launcher that a killed bench left: it holds the home's lock, in which its pid stands."""
    try:
        with home.lock.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return
    except BlockingIOError:
        launcher = psutil.Process(int(home.lock.read_text()))
        end_processes([launcher], signal.SIGTERM, _STOP_TIMEOUT_S)


class BenchPipeline:
    """Kafka, the ClickHouse engine and all of Midstream, from entry to exit; the home is made anew and removed.

    ``settings`` are given by name (``partitions=64``); the caller holds ``folder`` (:func:`bench_folder`).
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self.home = Home(Path(os.path.realpath(folder / "home")))
        ports = dict(zip(_PORT_SETTINGS, free_ports(len(_PORT_SETTINGS)), strict=True))
        # The spool's and the engine's limits are the product's own; only what is named differs from `make run`.
        given = {**ports, "home": self.home.root, "log_level": "warning", **settings}
        self.settings = Settings.model_validate({"kafka": "", "clickhouse": "", "registry": "", **given})
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MIDSTREAM_")}
        self.env = kept | {f"MIDSTREAM_{name.upper()}": str(value) for name, value in given.items()}
        self._launcher: subprocess.Popen[bytes] | None = None
        self._more: list[subprocess.Popen[bytes]] = []
        self._workers: dict[str, int] = {}
        self._output = folder / "launcher.out"

    def __enter__(self) -> BenchPipeline:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        _clear(self.home.root)

    @property
    def app_token(self) -> str:
        """Bearer token of the demo credential (role app)."""
        return self.home.token.read_text("utf-8").strip()

    def start(self) -> None:
        """Start and wait until it is ready.

        Raises:
            BenchError: it does not become ready; what it said is in the message.
        """
        with self._output.open("wb") as output:
            self._launcher = subprocess.Popen(
                [sys.executable, "-m", "deploy.local"],
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the bench, which stops it in order
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._ready():
            if self._launcher.poll() is not None or time.monotonic() > deadline:
                said = self._output.read_text("utf-8", errors="replace").strip()
                self.stop()
                raise BenchError(f"the pipeline does not start:\n{said[-4_000:]}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Stop it as Ctrl-C does, and what was started beside it."""
        for process in self._more:
            process.terminate()
        for process in self._more:
            _wait_or_kill(process, _STOP_TIMEOUT_S)
        self._more.clear()
        self._workers.clear()
        if self._launcher is not None:
            self._launcher.send_signal(signal.SIGTERM)
            _wait_or_kill(self._launcher, _STOP_TIMEOUT_S)
            self._launcher = None
        end_processes(find_processes(self.home), signal.SIGKILL, 5)

    def restart(self) -> None:
        """Stop and start on the same data."""
        self.stop()
        self.start()

    def add_worker(self, stage: str) -> None:
        """Start one more worker of ``validate`` or ``store``, and wait until it has a share of the partitions."""
        self.spawn(stage, f"bench-{stage}-{len(self._more)}")
        self._workers[stage] = self._workers.get(stage, 1) + 1
        self.wait_members(stage, self._workers[stage])

    def spawn(self, stage: str, worker_id: str, **settings: object) -> subprocess.Popen[bytes]:
        """Start a worker of ``validate`` or ``store`` beside the pipeline's own, without waiting for it.

        ``settings`` are those that it has besides. It is stopped with the pipeline, unless it has ended before.
        """
        env = self.env | {
            RUN_HOME: str(self.home.root),
            "MIDSTREAM_WORKER_ID": worker_id,
            f"MIDSTREAM_{stage.upper()}_METRICS_PORT": str(free_ports(1)[0]),
            **{f"MIDSTREAM_{name.upper()}": str(value) for name, value in settings.items()},
        }
        with (self.home.logs / f"{stage}-more.log").open("ab") as output:
            command = [sys.executable, "-m", f"processors.{stage}"]
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)  # noqa: S603
        self._more.append(process)
        return process

    def wait_members(self, stage: str, count: int) -> None:
        """Wait until a stage has so many workers, and each its share of the partitions.

        Raises:
            BenchError: not in time.
        """
        group = {"validate": topics.GROUP_VALIDATE, "store": topics.GROUP_STORE}[stage]

        def has_them() -> bool:
            found = asyncio.run(self._group(group))
            return found == ("Stable", count) if count else found is None or not found[1]

        self._wait(f"{count} workers of {stage}", has_them)

    def stop_own(self, stage: str) -> None:
        """Stop the pipeline's own worker of a stage for good, and wait until its group is empty.

        Raises:
            BenchError: not in time.
        """
        SupervisorClient(self.home.socket).stop(stage)
        self._workers[stage] = 0
        self.wait_members(stage, 0)

    async def _group(self, group: str) -> tuple[str, int] | None:
        states = GroupStates(self.settings, 5_000)
        try:
            return (await states.describe([group])).get(group)
        finally:
            await states.close()

    def operator_token(self) -> str:
        """Return the token of a new credential of the role operator."""
        credentials = Credentials(self.settings)
        try:
            return credentials.create(f"bench-{time.time_ns()}", role="operator").token
        finally:
            credentials.close()

    def push_dimensions(self) -> None:
        """Push a row for every user, device and object of the mix over the API.

        Raises:
            BenchError: it does not take them.
        """
        token = self.operator_token()
        for type_, lines in dimension_rows().items():
            connection = http.client.HTTPConnection("127.0.0.1", self.settings.port, timeout=_HTTP_TIMEOUT_S)
            try:
                headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"}
                connection.request("POST", f"/v1/dimensions/{type_}", b"\n".join(lines) + b"\n", headers)
                reply = connection.getresponse()
                answer: dict[str, Any] = json.loads(reply.read())
            finally:
                connection.close()
            if reply.status != 200 or answer.get("accepted") != len(lines):
                raise BenchError(f"dimensions of type {type_} were not taken: {reply.status} {answer}")

    def _ready(self) -> bool:
        assert self._launcher is not None  # noqa: S101  start() made it
        try:
            return bool(json.loads(self.home.ready.read_text("utf-8"))["pid"] == self._launcher.pid)
        except (OSError, ValueError):
            return False

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _JOIN_TIMEOUT_S
        while not done():
            if time.monotonic() > deadline:
                raise BenchError(f"not within {_JOIN_TIMEOUT_S:.0f} s: {what}")
            time.sleep(_POLL_S)


def _wait_or_kill(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
