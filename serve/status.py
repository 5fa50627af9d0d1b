"""Probes, metrics and the first page."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.responses import Response

from serve.errors import ApiError
from serve.readiness import OK
from serve.services import Services, services_of

router = APIRouter(tags=["probes"])

_GOOD = {"collector": OK, "kafka": OK, "clickhouse": OK, "validate": OK, "store": OK, "devices": OK}
_Services = Annotated[Services, Depends(services_of)]


def _probe_replies(good: dict[str, Any], bad: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {
        200: {"content": {"application/json": {"example": good}}},
        503: {"description": "Not now.", "content": {"application/json": {"example": bad}}},
    }


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Whether the process is alive", operation_id="health")
async def health() -> dict[str, str]:
    """Answer, whatever the other parts do."""
    return {"status": "alive"}


@router.head("/accepting", include_in_schema=False)
@router.get(
    "/accepting",
    summary="Whether a batch posted now would be durable",
    description="For balancers.",
    operation_id="accepting",
    responses=_probe_replies({"accepting": True}, {"accepting": False}),
)
async def accepting(services: _Services) -> JSONResponse:
    """Ask the collector of this process."""
    if services.accepting is None:
        raise ApiError(404, "NOT_FOUND", "no collector shares this process: ask the collector itself")
    good = services.accepting()
    return JSONResponse({"accepting": good}, 200 if good else 503)


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    summary="Whether a batch posted now would reach ClickHouse",
    operation_id="ready",
    responses=_probe_replies(
        {"ready": True, "parts": _GOOD},
        {"ready": False, "parts": {**_GOOD, "store": "no live worker"}},
    ),
)
async def ready(services: _Services) -> JSONResponse:
    """Run the checks."""
    parts = await services.readiness.states()
    good = all(state == OK for state in parts.values())
    return JSONResponse({"ready": good, "parts": parts}, 200 if good else 503)


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response, operation_id="metrics")
def metrics() -> Response:
    """Answer with the metrics of every process that serves this address. Runs in a thread: it reads files."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    registry = REGISTRY
    if folder:
        forget_dead_processes(Path(folder))
        registry = CollectorRegistry()
        registry.register(_Added(folder))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Added:
    """The metrics of all processes, added up; :meth:`collect` is what prometheus_client asks of a collector."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def collect(self) -> Iterable[Metric]:
        # A gauge that these processes set says how it is added up. The others are those of the workers, which are
        # declared here too and never set: they would show as a row of zeros for each process.
        files = [str(path) for path in self._folder.glob("*.db") if not path.name.startswith("gauge_all_")]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def forget_dead_processes(folder: Path) -> None:
    """Remove the live gauges of processes that are gone: a killed one cannot do it itself."""
    pids = {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*_*.db")}
    for pid in pids:
        if not _is_alive(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # untyped there


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_FIRST_PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Midstream</title></head>
<body>
<h1>Midstream</h1>
<p>Telemetry in, countable events out.</p>
<ul>
<li><a href="/docs">API documentation</a></li>
<li><a href="/ready">Is it ready?</a></li>
<li><a href="/metrics">Metrics</a></li>
</ul>
</body>
</html>
"""


@router.get("/", include_in_schema=False)
async def first_page() -> HTMLResponse:
    """Say what this is and where to go on."""
    return HTMLResponse(_FIRST_PAGE)
