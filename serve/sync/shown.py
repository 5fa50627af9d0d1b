"""A job as the API and the command show it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from midstream.registry.sync.jobs import JobRow

EXAMPLE: dict[str, Any] = {
    "id": "019ab1f0-2f4e-7d31-8a61-5b7c0a7f1e02",
    "kind": "sync",
    "type": "user",
    "status": "running",
    "phase": "correct",
    "objects": 1200,
    "progress": {"done": 400, "total": 1200, "per_s": 131.7},
    "changed": {"dimensions": 37, "events": 5120},
    "attempts": 1,
    "created_at": "2026-01-31T12:00:00.000Z",
    "started_at": "2026-01-31T12:00:01.000Z",
    "ended_at": None,
    "resweep_at": None,
}


def shown(job: JobRow) -> dict[str, Any]:
    """Return a job as JSON knows it; ``error`` and ``report`` only where there is one."""
    found: dict[str, Any] = {
        "id": job.id,
        "kind": job.kind,
        "type": job.type,
        "status": job.status,
        "phase": job.phase,
        "objects": job.objects,
        "progress": {"done": job.done, "total": job.total, "per_s": round(job.per_s, 1)},
        "changed": dict(job.changed),
        "attempts": job.attempts,
        "created_at": _iso(job.created_at),
        "started_at": _iso(job.started_at),
        "ended_at": _iso(job.ended_at),
        "resweep_at": _iso(job.resweep_at),
    }
    if job.error is not None:
        found["error"] = job.error
    if job.report is not None:
        found["report"] = dict(job.report)
    if job.cancel_requested and not job.is_ended:
        found["cancel_requested"] = True
    return found


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
