"""Workers that run beside those of a pipeline."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.pipeline import ROOT, Pipeline
from tests.support.ports import free_ports


class Extra:
    """A worker beside the pipeline's own of its stage, of another checkout if ``root`` says so."""

    def __init__(self, pipeline: Pipeline, stage: str, root: Path | None = None) -> None:
        self._pipeline, self._stage, self._root = pipeline, stage, root
        self._ports = [str(port) for port in free_ports(2)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {
            **self._pipeline.env,
            "MIDSTREAM_HOME": str(self._pipeline.home.root),
            "MIDSTREAM_WORKER_ID": "extra",
            "MIDSTREAM_VALIDATE_METRICS_PORT": self._ports[0],
            "MIDSTREAM_STORE_METRICS_PORT": self._ports[1],
        }
        if self._root is not None:
            env["PYTHONPATH"] = str(self._root)
        with (self._pipeline.home.logs / f"{self._stage}-extra.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"processors.{self._stage}"],
                cwd=self._root or ROOT,
                env=env,
                stdout=output,
                stderr=output,
            )

    def ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    def keep(self) -> None:
        """Start it again if it has ended, as a supervisor does."""
        if self._process is not None and self.ended():
            self.start()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process is not None:
            if not self.ended():
                self.signal(signal.SIGCONT)
                self._process.terminate()
                try:
                    self._process.wait(15)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            self._process = None
