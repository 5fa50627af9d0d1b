"""A pipeline whose ``store`` workers reach ClickHouse as if it were far away: through a proxy that takes its time.

So that what a worker waits for is the engine, as it is behind a network and replicas, and not the few cores of the
machine that measures. Its workers may come, leave and die one by one.
"""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack
from types import TracebackType

from bench.pipeline import BenchError, BenchPipeline, free_ports
from bench.proxy import Fault, Proxy

_END_S = 30.0
_TIMEOUT_MS = 120_000
"""Of an insert: it outlasts the time in which a backlog is made while no answer comes."""


class FarEngine:
    """``store`` workers beside a running pipeline, whose own one is stopped for good, from entry to exit."""

    def __init__(self, pipeline: BenchPipeline, insert_s: float, bytes_per_s: float) -> None:
        """``insert_s``: how much later the answer to each insert comes. ``bytes_per_s``: bound of what all workers
        together send; 0: none."""
        self.pipeline = pipeline
        (port,) = free_ports(1)
        self._proxy = Proxy(port, pipeline.settings.local_clickhouse_port, insert_s=insert_s, bytes_per_s=bytes_per_s)
        self._dsn = f"http://127.0.0.1:{port}/midstream"
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> FarEngine:
        self._stack.enter_context(self._proxy)
        self.pipeline.stop_own("store")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.still(False)  # nobody waits for an answer at the end
        for name in list(self._workers):
            self.end(name, signal.SIGTERM)
        self._stack.close()

    def start(self, name: str, worker_id: str = "") -> None:
        """Start a worker, named or not (``MIDSTREAM_WORKER_ID``), without waiting for it."""
        self._workers[name] = self.pipeline.spawn(
            "store", worker_id, clickhouse=self._dsn, clickhouse_timeout_ms=_TIMEOUT_MS
        )

    def wait(self, members: int) -> None:
        """Wait until the group has so many workers, each with its share of the partitions.

        Raises:
            BenchError: not in time.
        """
        self.pipeline.wait_members("store", members)

    def end(self, name: str, number: signal.Signals) -> None:
        """Send a worker a signal that ends it, and wait for its end.

        Raises:
            BenchError: it does not end.
        """
        process = self._workers.pop(name)
        process.send_signal(number)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_END_S)
            raise BenchError(f"the worker {name} did not end within {_END_S:.0f} s") from None

    def still(self, on: bool) -> None:
        """Hold back what the engine answers, or let all of it through at once."""
        self._proxy.set(Fault.STILL_ANSWERS if on else Fault.NONE)

    @property
    def ended(self) -> list[str]:
        """Workers that ended though nobody ended them."""
        return [name for name, process in self._workers.items() if process.poll() is not None]
