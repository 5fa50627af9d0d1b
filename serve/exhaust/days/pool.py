"""The processes that build days for this one: begun when there is something to build, ended when there is nothing.

One builds a day after the other, as starting Python and its libraries takes longer than a small day.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

from midstream.logs import get_logger
from midstream.settings import Settings
from serve.exhaust.days.builder import exits
from serve.exhaust.days.builder.job import Job

_log = get_logger(__name__)

_IDLE_S = 20.0
_END_S = 5.0
_TOLD = (
    *("home", "clickhouse", "clickhouse_cluster", "local_clickhouse_port", "clickhouse_timeout_ms"),
    *("exhaust_builders", "log_level", "log_format"),
)


class Builders:
    """At most ``exhaust_builders`` processes; who asks for more waits. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        # What a builder must know as this process does, however it came to know it: a file it reads itself.
        said = {name: getattr(settings, name) for name in _TOLD} | {"exhaust": settings.exhaust_folder}
        told = {f"MIDSTREAM_{name.upper()}": str(value) for name, value in said.items()}
        self._environ = os.environ | {name: value for name, value in told.items() if not os.environ.get(f"{name}_FILE")}
        self._places = asyncio.Semaphore(settings.exhaust_builders)
        self._idle: list[_Builder] = []

    async def close(self) -> None:
        """End those that have nothing to do; :meth:`run` ends its own when it is cancelled."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(builder.end() for builder in idle))

    async def run(self, job: Job) -> int:
        """Build a day; return what came of it, one of :mod:`serve.exhaust.days.builder.exits`."""
        async with self._places:
            try:
                builder = self._idle.pop() if self._idle else await _Builder.begin(self._environ)
            except OSError as error:
                _log.error("exhaust.builder_not_started", error=str(error))
                return exits.FAILED
            try:
                code = await builder.run(job)
            except BaseException:
                await builder.end()
                raise
            if builder.ended:
                return code
            self._idle.append(builder)
            asyncio.get_running_loop().call_later(_IDLE_S, self._dismiss, builder, builder.jobs)
            return code

    def _dismiss(self, builder: _Builder, jobs: int) -> None:
        """Let a builder end that has had nothing to do since its last job."""
        if builder in self._idle and builder.jobs == jobs:
            self._idle.remove(builder)
            builder.dismiss()


class _Builder:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise OSError("a builder has no pipes")
        self._process = process
        self._jobs = process.stdin
        self._codes = process.stdout
        self.jobs = 0

    @classmethod
    async def begin(cls, environ: Mapping[str, str]) -> _Builder:
        """Raise OSError when no process can be started."""
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "serve.exhaust.days.builder"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environ,
            )
        )

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def run(self, job: Job) -> int:
        self.jobs += 1
        try:
            self._jobs.write(job.encode() + b"\n")
            await self._jobs.drain()
            said = await self._codes.readline()
        except ConnectionError:
            said = b""
        if said:
            return int(said)
        code = await self._process.wait()
        if code != exits.ABANDONED:
            _log.warning("exhaust.builder_died", day=str(job.day), code=code)
            return exits.FAILED
        return code

    def dismiss(self) -> None:
        """Let it end by itself, which it does when there is nothing more to read."""
        self._jobs.close()

    async def end(self) -> None:
        """End it now."""
        if self.ended:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
