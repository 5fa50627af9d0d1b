"""The dashboards as the files that Grafana reads."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana import clickhouse, collector, devices, exhaust, overview, runbooks, workers

DASHBOARDS = Path(__file__).parent / "dashboards"

_MODULES = (overview, collector, workers, clickhouse, devices, exhaust, runbooks)


def files() -> dict[str, str]:
    """Return the JSON of every dashboard, by the name of its file: ``<uid>.json``."""
    made = [module.make() for module in _MODULES]
    return {f"{one.uid}.json": json.dumps(one, cls=JSONEncoder, indent=2, sort_keys=True) + "\n" for one in made}
