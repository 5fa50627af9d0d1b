"""What a course author reads: an academy's records of an asset, and how its learners do."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Security
from starlette.datastructures import URL
from starlette.responses import JSONResponse, Response

from midstream.assignments.stored import (
    LISTED,
    SORTED_BY,
    AssetReport,
    StepReport,
    count_records,
    read_page,
    read_report,
)
from serve.assignments import refused
from serve.assignments.caller import TOKEN, reader_of
from serve.assignments.paths import RawPathRoute, asset_of
from serve.objects import iso_us
from serve.openapi import json_reply
from serve.services import Services, services_of

router = APIRouter(tags=["assignments"], route_class=RawPathRoute, dependencies=[Security(TOKEN)])

MAX_PAGE = 1_000
MAX_CSV_RECORDS = 20_000

_Services = Annotated[Services, Depends(services_of)]
_SORTS = tuple(sign + name for name in SORTED_BY for sign in ("", "-"))
_COLUMNS = ("user", *LISTED[1:])
_LISTED_RECORD = {
    "user": 123,
    "id": 1,
    "engagement_score": 90.5,
    "frustration_score": None,
    "completion_rate": 50.0,
    "metrics_algo_version": 1.0,
    "total_time": "01:30:00",
    "metrics": {"steps": 4},
    "created_at": "2026-01-01T00:00:00.000000Z",
    "updated_at": "2026-01-01T00:00:00.000000Z",
}
_REPORT = {
    "academy": 1,
    "assets": [
        {
            "asset_slug": "intro-to-python",
            "learners": 30,
            "completed": 12,
            "completion_rate": 71.5,
            "engagement_score": 40.2,
            "frustration_score": 11.0,
            "steps": [
                {
                    "slug": "02-variables",
                    "position": 2,
                    "opened": 28,
                    "completed": 20,
                    "stuck": 8,
                    "skipped": 1,
                    "compilation_struggles": 3.5,
                    "test_struggles": 1.25,
                    "seconds": 640.0,
                }
            ],
        }
    ],
    "next": None,
}


@router.get(
    "/v1/assignment/academy/asset/{asset_slug}/telemetry",
    summary="An academy's records of an asset",
    description="Without the telemetry itself, which each record's own path has. `?format=csv` (or `Accept: text/csv`) "
    f"for a table of up to {MAX_CSV_RECORDS:,} records at once. Records without the value that is sorted by come last.",
    responses={
        **json_reply(200, {"count": 1, "next": None, "previous": None, "results": [_LISTED_RECORD]}),
        **refused.replies(400, 401, 403, 503),
    },
)
async def get_records(
    request: Request,
    services: _Services,
    asset_slug: str,
    limit: Annotated[str, Query(description=f"1 to {MAX_PAGE}; 100 by default.")] = "",
    offset: Annotated[str, Query(description="Records before the first.")] = "",
    sort: Annotated[
        str, Query(description="; ".join(_SORTS[::2]) + "; with a minus before it: from the highest.")
    ] = "user",
    format: Annotated[str, Query(description="json or csv.")] = "",
) -> Response:
    """Answer with a page, or with the table."""
    caller = await reader_of(request, services.assignments.access)
    as_csv = _is_csv(request, format)
    most = MAX_CSV_RECORDS if as_csv else MAX_PAGE
    page = _Page(
        limit=_whole("limit", limit, 1, most, most if as_csv else 100), offset=_whole("offset", offset, 0, 2**53, 0)
    )
    if sort not in _SORTS:
        raise refused.bad_fields(
            {"sort": [f"Select a valid choice: {', '.join(_SORTS[::2])}, with a minus before it."]}
        )
    slug = asset_of(asset_slug)
    ask = services.assignments.store.ask
    records = await ask(
        partial(
            read_page,
            academy_id=caller.academy_id,
            asset_slug=slug,
            sort=sort.removeprefix("-"),
            descending=sort.startswith("-"),
            limit=page.limit,
            offset=page.offset,
        )
    )
    if as_csv:
        return _table(records)
    count = await ask(partial(count_records, academy_id=caller.academy_id, asset_slug=slug))
    return Response(
        msgspec.json.encode(
            {"count": count, **page.links(request.url, count), "results": [_shown(one) for one in records]}
        ),
        media_type="application/json",
    )


@router.get(
    "/v1/assignment/academy/report",
    summary="How an academy's learners do, asset by asset",
    description="`stuck`: learners who opened a step and have not completed it. Struggles (runs that failed) and "
    "seconds are means over the learners who opened the step. Means are null where nobody has the value.",
    responses={**json_reply(200, _REPORT), **refused.replies(400, 401, 403, 503)},
)
async def get_report(
    request: Request,
    services: _Services,
    asset: Annotated[str, Query(description="Only this asset.")] = "",
    after: Annotated[str, Query(description="Assets after this one: `next` of the reply before.")] = "",
    limit: Annotated[str, Query(description="Assets of one reply, 1 to 200; 50 by default.")] = "",
) -> Response:
    """Answer with the report."""
    caller = await reader_of(request, services.assignments.access)
    most = _whole("limit", limit, 1, 200, 50)
    found = await services.assignments.store.ask(
        partial(read_report, academy_id=caller.academy_id, asset_slug=asset, after=after, limit=most + 1)
    )
    shown = [_shown_asset(one) for one in found[:most]]
    return JSONResponse(
        {
            "academy": caller.academy_id,
            "assets": shown,
            "next": found[most - 1].asset_slug if len(found) > most else None,
        }
    )


class _Page(msgspec.Struct, frozen=True):
    limit: int
    offset: int

    def links(self, url: URL, count: int) -> dict[str, str | None]:
        """Return where the pages after and before this one are."""
        after, before = self.offset + self.limit, max(0, self.offset - self.limit)
        return {
            "next": _path(url, self.limit, after) if after < count else None,
            "previous": _path(url, self.limit, before) if self.offset else None,
        }


def _path(url: URL, limit: int, offset: int) -> str:
    there = url.include_query_params(limit=limit, offset=offset)
    return f"{there.path}?{there.query}"


def _is_csv(request: Request, said: str) -> bool:
    if said not in ("", "json", "csv"):
        raise refused.bad_fields({"format": ["Select a valid choice: json, csv."]})
    return said == "csv" or (not said and request.headers.get("accept", "").startswith("text/csv"))


def _whole(name: str, said: str, least: int, most: int, default: int) -> int:
    if not said:
        return default
    if not (said.isascii() and said.isdigit() and len(said) < 20 and least <= int(said) <= most):
        raise refused.bad_fields({name: [f"A whole number from {least} to {most} is required."]})
    return int(said)


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    metrics = record["metrics"]
    return {
        "user": record["user_id"],
        **{name: record[name] for name in LISTED[1:]},
        "metrics": None if metrics is None else msgspec.Raw(metrics.encode()),
        "created_at": iso_us(record["created_at"]),
        "updated_at": iso_us(record["updated_at"]),
    }


def _table(records: Sequence[Mapping[str, Any]]) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for record in records:
        shown = {**_shown(record), "metrics": record["metrics"]}
        writer.writerow(["" if shown[name] is None else shown[name] for name in _COLUMNS])
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8")


def _shown_asset(asset: AssetReport) -> dict[str, Any]:
    return {
        "asset_slug": asset.asset_slug,
        "learners": asset.learners,
        "completed": asset.completed,
        "completion_rate": _rounded(asset.completion_rate),
        "engagement_score": _rounded(asset.engagement_score),
        "frustration_score": _rounded(asset.frustration_score),
        "steps": [_shown_step(step) for step in asset.steps],
    }


def _shown_step(step: StepReport) -> dict[str, Any]:
    return {
        "slug": step.slug,
        "position": step.position,
        "opened": step.opened,
        "completed": step.completed,
        "stuck": step.stuck,
        "skipped": step.skipped,
        "compilation_struggles": _rounded(step.compilation_struggles),
        "test_struggles": _rounded(step.test_struggles),
        "seconds": _rounded(step.seconds),
    }


def _rounded(mean: float | None) -> float | None:
    return None if mean is None else round(mean, 2)
