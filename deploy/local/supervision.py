"""The supervised processes, and the supervisord that keeps them running."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.local.errors import LocalError
from deploy.local.home import Home
from deploy.local.supervise import LAUNCHER_PID
from deploy.local.supervisor_client import SupervisorClient, SupervisorGoneError
from midstream.settings import Settings

START_SECONDS = 3
"""A process that ends before this has not started, and the next try waits a second longer than the last."""
START_TRIES = 10
"""After so many, supervisord gives up (FATAL): :mod:`deploy.local.watch` then starts it again."""

_UP_TIMEOUT_S = 10.0
_STOP_MARGIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Program:
    """A supervised process. They are stopped one after the other, in falling order of ``priority``.

    One that has not ended ``stop_s`` seconds after SIGTERM is killed, with the processes it made.
    """

    name: str
    module: str
    priority: int
    stop_s: int


def programs_of(settings: Settings) -> list[Program]:
    """Return the processes of a pipeline: those that take data in stop first, what keeps it stops last."""
    programs = [
        Program("web", "deploy.local.web", 50, settings.drain_timeout_ms // 1000 + 3),
        Program("jobs", "serve.jobs", 45, 15),
        Program("validate", "processors.validate", 40, 8),
        Program("store", "processors.store", 30, 8),
        Program("devices", "processors.devices", 35, 8),
    ]
    if not settings.clickhouse:
        programs.append(Program("engine", "deploy.local.engine", 20, 10))
    if not settings.kafka:
        programs.append(Program("kafka", "deploy.local.broker", 10, 10))
    return programs


def supervisord_config(programs: list[Program]) -> str:
    """Return supervisord's configuration.

    Paths come from the environment when it is read (``%(ENV_...)s``), and commands are found in PATH: a
    folder's name may have spaces, quotes, percent signs or semicolons, which would mean something in this file.
    """
    home = "%(ENV_MIDSTREAM_RUN_HOME)s"
    sections = [
        f"""[unix_http_server]
file = %(ENV_MIDSTREAM_RUN_SOCKET)s
chmod = 0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisord]
nodaemon = true
silent = true
nocleanup = true
logfile = {home}/logs/supervisord.log
logfile_maxbytes = 5MB
logfile_backups = 2
pidfile = {home}/run/supervisord.pid
"""
    ]
    sections += [
        f"""[program:{program.name}]
command = python -m {program.module}
priority = {program.priority}
autostart = false
autorestart = true
startsecs = {START_SECONDS}
startretries = {START_TRIES}
stopsignal = TERM
stopwaitsecs = {program.stop_s}
killasgroup = true
redirect_stderr = true
stdout_logfile = %(ENV_MIDSTREAM_RUN_LOGS)s/{program.name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
"""
        for program in programs
    ]
    return "\n".join(sections)


class Supervision(SupervisorClient):
    """A running supervisord and its processes, which it starts only when told."""

    def __init__(self, home: Home, programs: list[Program], environ: Mapping[str, str]) -> None:
        """Start supervisord and wait until it answers.

        It is in a session of its own, so that Ctrl-C in the terminal reaches the launcher only.

        Raises:
            LocalError: it does not come up.
        """
        super().__init__(home.socket)
        self.stop_limit_s = sum(program.stop_s for program in programs) + _STOP_MARGIN_S
        config = home.run / "supervisord.conf"
        config.write_text(supervisord_config(programs))
        for stale in (home.socket, home.run / "supervisord.pid"):
            stale.unlink(missing_ok=True)
        said = home.run / "supervisord.err"
        with said.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "deploy.local.supervise", "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={
                    **environ,
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}",
                    "MIDSTREAM_RUN_SOCKET": str(home.socket),
                    # supervisord expands this option a second time, over what the first time put in.
                    "MIDSTREAM_RUN_LOGS": str(home.logs).replace("%", "%%"),
                    LAUNCHER_PID: str(os.getpid()),
                    "PYTHONUNBUFFERED": "1",
                },
            )
        try:
            self._wait_until_up(said)
        except BaseException:
            self.kill()
            raise

    def _wait_until_up(self, said: Path) -> None:
        deadline = time.monotonic() + _UP_TIMEOUT_S
        while True:
            try:
                self.processes()
            except SupervisorGoneError:
                if self.ended() or time.monotonic() > deadline:
                    words = said.read_text(errors="replace").strip()[-2000:]
                    raise LocalError(f"the supervisor does not start: {words or 'it said nothing'}") from None
                time.sleep(0.02)
            else:
                return

    def begin_stop(self) -> None:
        """Tell supervisord to stop all processes in order, and then itself."""
        if not self.ended():
            self._process.terminate()

    def ended(self) -> bool:
        """Whether supervisord has ended."""
        return self._process.poll() is not None

    def kill_processes(self) -> None:
        """End all processes at once; supervisord, which is being stopped, then has nothing to wait for."""
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue

    def kill(self) -> None:
        """End supervisord and all processes at once."""
        if not self.ended():
            self.kill_processes()
            self._process.kill()
            self._process.wait()
