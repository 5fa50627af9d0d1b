"""Jobs of data sync as an operator sees them, and the source that the shared pipeline has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.integration.outside import Outside, Row
from tests.support.waiting import wait_until

SYNC = "/api/data/v1/index/sync"
REPAIR_MS = 3_000
"""How soon the shared pipeline repairs events of late dimensions."""
SOURCED = "batch"
"""The one type for which the shared pipeline has a source: no other test pushes objects of it."""

_JOB_S = 90.0
_COPIES = ("user", "device", "content", "collection", "organisation", "batch", "location", "flags")


def write_sources(folder: Path) -> Path:
    """Write a file of sources, with an empty folder for the rows of :data:`SOURCED`; return its path."""
    folder.mkdir()
    (folder / "rows").mkdir()
    sources = folder / "sources.toml"
    sources.write_text(f'[{SOURCED}]\nkind = "file"\npath = "rows"\n')
    return sources


def begin_sync(outside: Outside, type_: str, *ids: str, **options: bool) -> str:
    """Ask for a sync, of all of a type without ids; return the job's id."""
    request = {"objectType": type_, "objectIds": list(ids), **options}
    reply = outside.operate("POST", SYNC, {"request": request})
    assert reply.status_code == 200, reply.text
    job_id: str = reply.json()["result"]["node_id"]
    return job_id


def begin_delete(outside: Outside, path: str, *, erase: bool) -> str:
    """Ask for a deletion; return the job's id."""
    reply = outside.operate("DELETE", path + ("?erase=true" if erase else ""))
    assert reply.status_code == 202, reply.text
    job_id: str = reply.json()["node_id"]
    return job_id


def job_of(outside: Outside, job_id: str) -> Row:
    """Return a job as it is now."""
    job: Row = outside.operate("GET", f"/v1/sync/{job_id}").json()
    return job


def wait_job(outside: Outside, job_id: str, what: str, is_so: Callable[[Row], bool], timeout_s: float = _JOB_S) -> Row:
    """Wait until something is so of a job; return it."""

    def look() -> Row | None:
        job = job_of(outside, job_id)
        return job if is_so(job) else None

    return wait_until(f"job {job_id} {what}", look, timeout_s, 0.2)


def ended(outside: Outside, job_id: str) -> Row:
    """Wait for a job's end; return the job."""
    return wait_job(outside, job_id, "has ended", lambda job: job["status"] in ("done", "failed", "cancelled"))


def done(outside: Outside, job_id: str) -> Row:
    """Wait until a job is done; return it."""
    job = ended(outside, job_id)
    assert job["status"] == "done", job
    return job


def synced(outside: Outside, type_: str, *ids: str, **options: bool) -> Row:
    """Sync, and wait until it is done; return the job."""
    return done(outside, begin_sync(outside, type_, *ids, **options))


def push(outside: Outside, type_: str, id_: str, attributes: Mapping[str, object]) -> None:
    """Push an object; ClickHouse may have it later."""
    reply = outside.operate("PUT", f"/v1/dimensions/{type_}/{id_}", dict(attributes))
    assert reply.status_code == 200, reply.text


def push_and_wait(outside: Outside, type_: str, id_: str, attributes: Mapping[str, object]) -> None:
    """Push an object that was not known, and wait until ClickHouse has it."""
    push(outside, type_, id_, attributes)
    path = f"/v1/dimensions/{type_}/{id_}"
    wait_until("it is stored", lambda: outside.operate("GET", path).status_code == 200)


def copies(outside: Outside, mid: str) -> Row:
    """Return an event's copies, location and flags as values; {} for an empty one."""
    return all_copies(outside, mid)[mid]


def all_copies(outside: Outside, *mids: str) -> dict[str, Row]:
    """Return the copies, location and flags of each of some events, as values; {} for an empty one."""
    events = outside.events(mids)
    return {mid: {name: json.loads(events[mid][name] or "{}") for name in _COPIES} for mid in mids}


def tables_naming(outside: Outside, text: str) -> dict[str, int]:
    """Return how many rows of each table of the database hold a text, in whatever column that can hold one.

    Of rows that a table replaces at a merge the former ones count too.
    """
    found = {}
    for table, columns in _texts(outside).items():
        where = " OR ".join(f"position(toString({column}), {{text:String}}) > 0" for column in columns)
        count = outside.value(f"SELECT count() FROM {table} WHERE {where}", text=text)
        if count:
            found[table] = count
    return found


def _texts(outside: Outside) -> dict[str, list[str]]:
    sql = (
        "SELECT table, groupArray(name) AS names FROM system.columns "
        "WHERE database = currentDatabase() AND match(type, 'String') AND NOT match(type, '^AggregateFunction') "
        "GROUP BY table"
    )
    found = {row["table"]: [f"`{name}`" for name in row["names"]] for row in outside.rows(sql)}
    assert {"learning_events", "operational_events", "reject_rows", "dimension_rows", "device_rows"} <= set(found)
    return found
