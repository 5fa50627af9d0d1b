"""The wait of a reply for its job, and what it then says of each id."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from midstream.clickhouse.client import ClickHouseError
from midstream.logs import get_logger
from midstream.registry.sync.jobs import JobRow, Jobs
from serve.errors import ApiError
from serve.sync.envelope import SERVER_ERROR
from serve.sync.service import Syncs

_log = get_logger(__name__)

_POLL_S = 0.2


async def told_of_each(syncs: Syncs, job: JobRow, asked: Sequence[str]) -> Mapping[str, bool]:
    """Wait until the job has ended, for a while, and return of each id whether there is such an object.

    When it has not ended in time, it is told by what the job knows by then, else by what ClickHouse has.

    Raises:
        ApiError: 500, the job has failed, or is to be tried again.
        RegistryUnavailable: it cannot be told now.
    """
    if not syncs.slots.locked():
        async with syncs.slots:
            job = await _wait(syncs, job)
    if job.status == "cancelled" or job.error is not None:
        raise ApiError(500, SERVER_ERROR, f"job {job.id}: {job.error or 'it was cancelled'}")
    response = await syncs.calls.read(Jobs.response_of, job.id)
    if response is None:
        response = dict.fromkeys(await _alive(syncs, job, asked), True)
    return {id_: response.get(id_, False) for id_ in asked}


async def _wait(syncs: Syncs, job: JobRow) -> JobRow:
    """Return the job as it is when it has ended or failed once, or when the time is up."""
    until = time.monotonic() + syncs.wait_s
    while not (job.is_ended or job.error is not None) and time.monotonic() < until:
        await asyncio.sleep(_POLL_S)
        found = await syncs.calls.read(Jobs.get, job.id)
        job = found or job
    return job


async def _alive(syncs: Syncs, job: JobRow, asked: Sequence[str]) -> set[str]:
    try:
        return await syncs.finder.alive(job.type, asked)
    except ClickHouseError as error:
        _log.warning("clickhouse.unavailable", error=str(error))
        return set()
