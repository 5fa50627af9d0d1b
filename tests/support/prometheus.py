"""A real Prometheus for tests: on a free port, with its data in a temporary folder of its own."""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.ports import free_ports
from tests.support.waiting import wait_until

_START_S = 30.0
_STOP_S = 20.0
_ANSWER_S = 20.0


def why_no_prometheus() -> str:
    """Return why none can be started here, "" when one can."""
    return "" if shutil.which("prometheus") else "Prometheus is not installed (Debian's package `prometheus`)"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of an instant query."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """Asks a running server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=_ANSWER_S, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def is_ready(self) -> bool:
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, expr: str) -> list[Sample]:
        """Return what a query gives now; a scalar as one sample without labels. Fails with Prometheus' words."""
        found = self._ask("POST", "/api/v1/query", {"query": expr})
        if found["resultType"] == "scalar":
            return [Sample({}, float(found["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in found["result"]]

    def value(self, expr: str) -> float:
        """Return the one sample that a query gives; NaN when it gives none."""
        found = self.query(expr)
        assert len(found) <= 1, f"{len(found)} series of {expr}"
        return found[0].value if found else math.nan

    def exposed(self) -> dict[str, set[str]]:
        """Return the metrics that the targets declare, by the name they declare, with the jobs that do."""
        names: dict[str, set[str]] = {}
        for one in self._ask("GET", "/api/v1/targets/metadata"):
            names.setdefault(one["metric"], set()).add(one["target"]["job"])
        return names

    def targets(self) -> dict[str, str]:
        """Return the health (up, down, unknown) of each target, by job and instance."""
        active = self._ask("GET", "/api/v1/targets?state=active")["activeTargets"]
        return {f"{one['labels']['job']} {one['labels']['instance']}": one["health"] for one in active}

    def _ask(self, method: str, path: str, data: Mapping[str, str] | None = None) -> Any:
        reply = self._http.request(method, path, data=data)
        assert reply.status_code == 200, f"{reply.status_code} for {data or path}: {reply.text}"
        return reply.json()["data"]


@contextmanager
def prometheus(
    scraped: Mapping[str, str], *, interval_s: int = 1, rules: tuple[Path, ...] = ()
) -> Iterator[Prometheus]:
    """Run a server that scrapes ``scraped``, addresses (host:port) by job name, and evaluates files of rules.

    Yields when it answers and every target was scraped once. Nothing of it is left at the end.
    """
    configuration = {
        "global": {"scrape_interval": f"{interval_s}s", "evaluation_interval": f"{interval_s}s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [address]}]} for job, address in scraped.items()
        ],
    }
    folder = Path(tempfile.mkdtemp(prefix="midstream-prometheus-"))
    try:
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        (port,) = free_ports(1)
        command = [
            str(shutil.which("prometheus")),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        found = Prometheus(f"http://127.0.0.1:{port}")
        try:
            _wait_ready(found, server, folder / "log")
            wait_until("every target is scraped", lambda: set(found.targets().values()) == {"up"}, _START_S)
            yield found
        finally:
            found.close()
            server.terminate()
            try:
                server.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_ready(found: Prometheus, server: subprocess.Popen[bytes], log: Path) -> None:
    def ready() -> bool:
        assert server.poll() is None, f"Prometheus ended with {server.returncode}:\n{log.read_text(errors='replace')}"
        return found.is_ready()

    wait_until("Prometheus answers", ready, _START_S)
