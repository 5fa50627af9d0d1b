"""A ClickHouse engine of its own for measuring: in a temporary home, on a free port, with all tables."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import psutil

from bench.pipeline import free_ports
from deploy.local.engine import config
from midstream.clickhouse.client import ClickHouse, ClickHouseError, open_client
from midstream.clickhouse.migrate import migrate
from midstream.logs import configure_logs
from midstream.settings import Settings

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine."""

    settings: Settings
    clickhouse: ClickHouse
    process: psutil.Process

    def cpu_s(self) -> float:
        """CPU seconds that it has used."""
        times = self.process.cpu_times()
        return times.user + times.system


@contextmanager
def temporary_engine(folder: Path | None = None, grants: Sequence[str] = ()) -> Iterator[Engine]:
    """Start an engine, migrate it, and stop it and remove its home afterwards.

    Args:
        folder: where its home is made; None: the system's place for temporary files.
        grants: statements of what its queries may besides; none: the engine is the product's.
    """
    with tempfile.TemporaryDirectory(prefix="midstream-bench-", dir=folder) as home:
        settings = Settings.model_validate(
            {"home": home, "local_clickhouse_port": free_ports(1)[0], "clickhouse": "", "log_level": "warning"}
        )
        configure_logs(settings, "bench")  # to stderr: what is found goes to stdout
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MIDSTREAM_")}
        environ = kept | {
            "MIDSTREAM_HOME": home,
            "MIDSTREAM_LOCAL_CLICKHOUSE_PORT": str(settings.local_clickhouse_port),
            "MIDSTREAM_LOG_LEVEL": settings.log_level,
        }
        command = [sys.executable, "-m", "bench.engine", *grants]
        with subprocess.Popen(command, env=environ) as process:  # noqa: S603  ours
            try:
                clickhouse = _connect(settings, process)
                yield Engine(settings, clickhouse, psutil.Process(process.pid))
                clickhouse.close()
            finally:
                process.terminate()
                try:
                    process.wait(_STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def _connect(settings: Settings, process: subprocess.Popen[bytes]) -> ClickHouse:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            migrate(settings)
            return open_client(settings)
        except ClickHouseError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def main() -> None:
    """Be the engine: ``python -m bench.engine GRANT...``."""
    from deploy.local.engine.__main__ import main as serve

    with patch.object(config, "_GRANTS", (*config._GRANTS, *sys.argv[1:])):
        serve()


if __name__ == "__main__":
    main()
