"""A real pipeline for tests: `python -m deploy.local` on free ports and a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from deploy.local.home import Home
from deploy.local.orphans import find_processes
from deploy.local.supervisor_client import SupervisorClient
from deploy.local.waiting import http_get
from tests.support.faketime import Clock
from tests.support.ports import port_settings
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]

PARTITIONS = 2
"""Of each topic, unless a test says otherwise: what holds for one is easy."""

START_TIMEOUT_S = 100.0
STOP_TIMEOUT_S = 60.0


class Pipeline:
    """Kafka, ClickHouse engine, validate, store, devices, jobs and web, as `make run` starts them.

    Settings are given by their names (``seal_interval_ms=50``); ports are free ones unless given, and topics have
    :data:`PARTITIONS`. As a context
    manager it is started on entry and stopped on exit; the home and the ports stay the same from start to start.
    ``clock`` is what its Python processes take for the time, the real one unless given; ``root`` is the checkout that
    they run, this one unless given.
    """

    def __init__(self, home: Path, *, clock: Clock | None = None, root: Path = ROOT, **settings: object) -> None:
        self.root = root
        self.home = Home(Path(os.path.realpath(home)))
        self.settings: dict[str, object] = {**port_settings(), "home": home, "partitions": PARTITIONS, **settings}
        # Only what the test says: settings of the one who runs the tests don't count.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MIDSTREAM_")}
        ours = {f"MIDSTREAM_{name.upper()}": str(value) for name, value in self.settings.items()}
        self._real_clock_env: dict[str, str] = {**kept, **ours}
        if root != ROOT:
            self._real_clock_env["PYTHONPATH"] = str(root)
        self.use_clock(clock)
        self.started_in_s = 0.0
        self._launcher: subprocess.Popen[bytes] | None = None
        self._output = home.with_name(home.name + ".out")

    def use_clock(self, clock: Clock | None) -> None:
        """Let what is started from now on look at this clock; None: at the real one."""
        self.env: dict[str, str] = self._real_clock_env | (clock.env if clock else {})

    def __enter__(self) -> Pipeline:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._launcher is not None:
            self.stop()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.settings['port']}"

    @property
    def clickhouse_dsn(self) -> str:
        return str(self.settings.get("clickhouse") or self.facts["clickhouse"])

    @property
    def kafka_servers(self) -> str:
        return str(self.facts["kafka"])

    @property
    def token(self) -> str:
        """Bearer token of the demo credential (role app)."""
        return Path(self.facts["token_file"]).read_text().strip()

    @property
    def facts(self) -> dict[str, Any]:
        """What `ready.json` says."""
        facts: dict[str, Any] = json.loads(self.home.ready.read_text())
        return facts

    @property
    def output(self) -> str:
        """What the launcher has said on its terminal, over all starts."""
        return self._output.read_text(errors="replace")

    @property
    def launcher_pid(self) -> int:
        assert self._launcher is not None
        return self._launcher.pid

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the launcher, without waiting for anything."""
        self._output.parent.mkdir(parents=True, exist_ok=True)
        with self._output.open("ab") as output:
            self._launcher = subprocess.Popen(
                [sys.executable, "-m", "deploy.local"],
                cwd=self.root,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return self._launcher

    def start(self) -> Pipeline:
        """Start, and wait until it says that it is ready."""
        began = time.monotonic()
        launcher = self.launch()

        def ready() -> bool:
            assert launcher.poll() is None, f"the launcher ended with {launcher.returncode}:\n{self.output}"
            return self.home.ready.exists() and self.facts["pid"] == launcher.pid

        try:
            wait_until("the pipeline is ready", ready, START_TIMEOUT_S)
        except BaseException:
            self.stop()
            sys.stderr.write(self.output)
            raise
        self.started_in_s = time.monotonic() - began
        return self

    def stop(self) -> int:
        """Stop as Ctrl-C does; return the launcher's exit code. Fails if anything is left."""
        assert self._launcher is not None
        self._launcher.send_signal(signal.SIGINT)
        return self.wait_stopped()

    def wait_stopped(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for the launcher's end; return its exit code. Fails if anything is left."""
        assert self._launcher is not None
        try:
            code = self._launcher.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._launcher.kill()
            self._launcher.wait()
            raise
        self._launcher = None
        self.wait_gone(0)
        return code

    def kill_launcher(self) -> None:
        """End the launcher with SIGKILL; the rest is on its own."""
        assert self._launcher is not None
        self._launcher.kill()
        self._launcher.wait()
        self._launcher = None

    def wait_gone(self, timeout_s: float) -> None:
        """Wait until no process of this pipeline lives."""
        wait_until("no process is left", lambda: not find_processes(self.home), timeout_s)

    def pid_of(self, name: str) -> int:
        """Return the pid of a supervised process (kafka, engine, validate, store, devices, jobs, web); 0: none runs."""
        return SupervisorClient(self.home.socket).processes()[name].pid

    def kill(self, name: str) -> int:
        """End a supervised process with SIGKILL; return the pid it had."""
        pid = self.pid_of(name)
        assert pid, f"{name} does not run"
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the base URL says that it is ready."""
        port = int(str(self.settings["port"]))
        wait_until("/ready is 200", lambda: http_get("127.0.0.1", port, "/ready")[0] == 200, timeout_s)

    def log_of(self, name: str) -> str:
        """Return what a process has logged."""
        return (self.home.logs / f"{name}.log").read_text(errors="replace")
