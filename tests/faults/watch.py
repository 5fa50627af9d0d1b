"""What a Prometheus with the deployment's own rules says while something is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import yaml

from tests.chaos.world import World
from tests.support.pipeline import ROOT
from tests.support.prometheus import Prometheus, prometheus

_FOLDER = ROOT / "deploy" / "prometheus"
_POLL_S = 2.0


@contextmanager
def watching(world: World) -> Iterator[Watch]:
    """Scrape the processes as often as ``deploy/prometheus/prometheus.yml`` does, under its rules."""
    settings = world.settings
    ports = {
        "web": settings.port,
        "validate": settings.validate_metrics_port,
        "store": settings.store_metrics_port,
        "devices": settings.devices_metrics_port,
        "jobs": settings.jobs_metrics_port,
    }
    interval = str(yaml.safe_load((_FOLDER / "prometheus.yml").read_text())["global"]["scrape_interval"])
    assert interval.endswith("s"), interval
    with prometheus(
        {f"midstream-{name}": f"127.0.0.1:{port}" for name, port in ports.items()},
        interval_s=int(interval.removesuffix("s")),
        rules=tuple(sorted((_FOLDER / "rules").glob("*.yml"))),
    ) as server:
        yield Watch(server)


class Watch:
    """Looks at what fires."""

    def __init__(self, server: Prometheus) -> None:
        self._server = server

    def firing(self) -> set[str]:
        """Return the alerts that fire now, each with its labels, but for the severity."""
        return {_name(sample.labels) for sample in self._server.query('ALERTS{alertstate="firing"}')}

    def during(self, seconds: float) -> dict[str, float]:
        """Return the alerts that fired within a time, with the seconds after which each was first seen.

        ``seconds`` are waited for in any case: what fires late counts, too.
        """
        began = time.monotonic()
        seen: dict[str, float] = {}
        while (passed := time.monotonic() - began) < seconds:
            for alert in self.firing():
                seen.setdefault(alert, passed)
            time.sleep(_POLL_S)
        return seen

    def until_quiet(self, seconds: float) -> dict[str, float]:
        """Return what fired until nothing did; fails when something still does after ``seconds``."""
        began = time.monotonic()
        seen: dict[str, float] = {}
        while alerts := self.firing():
            passed = time.monotonic() - began
            assert passed < seconds, f"{sorted(alerts)} still fire {seconds:.0f} s after the end"
            for alert in alerts:
                seen.setdefault(alert, passed)
            time.sleep(_POLL_S)
        return seen


def _name(labels: Mapping[str, str]) -> str:
    return alert_name(labels["alertname"], {k: v for k, v in labels.items() if k in ("job", "reason", "kind", "table")})


def alert_name(alert: str, labels: Mapping[str, str]) -> str:
    """Return how an alert is written here: its name, and what its labels name."""
    inner = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{alert}{{{inner}}}" if inner else alert
