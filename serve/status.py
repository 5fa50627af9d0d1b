"""Probes, metrics and the first page."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.responses import Response

from midstream.exposition import CONTENT_TYPE, render_metrics
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
    return Response(render_metrics(), media_type=CONTENT_TYPE)


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
