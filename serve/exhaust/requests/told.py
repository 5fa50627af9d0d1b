"""A request as its owner is told of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from midstream.registry.exhaust.requests import RequestRow


def told(row: RequestRow, download_url: str | None) -> dict[str, Any]:
    """Return what is told of a request; what is not known yet is null.

    Args:
        row: the request.
        download_url: a signed link to its archive, if that is there.
    """
    ask, variant = row.ask, row.ask.variant
    is_done = row.status in ("SUCCESS", "EXPIRED")
    return {
        "requestId": row.id,
        "status": row.status,
        "datasetId": ask.dataset,
        "resourceId": ask.resource,
        "fromDate": str(ask.first),
        "toDate": str(ask.last),
        "format": variant.format,
        "eid": list(variant.eids),
        "channel": list(variant.channels),
        "submittedAt": _moment(row.submitted_at),
        "completedAt": _moment(row.completed_at),
        "expiresAt": _moment(row.expires_at),
        "progress": {
            "days": len(ask.period),
            "daysBuilt": row.days_built,
            "events": row.events,
            "percent": row.percent,
        },
        "events": row.events if is_done else None,
        "bytes": row.bytes if is_done else None,
        "downloadUrl": download_url,
        "errmsg": row.message,
    }


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
