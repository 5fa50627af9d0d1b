"""A request as it stands now: whether it may still be had, and whether its archive is still what it should be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from midstream.exhaust.variant import etag
from midstream.registry.exhaust.access import ExhaustAccess
from midstream.registry.exhaust.errors import LoginError
from midstream.registry.exhaust.requests import RequestRow, Requests
from serve.exhaust.asked import Asked, jobs_of
from serve.exhaust.requests.calls import RequestCalls
from serve.exhaust.requests.kept import Kept


@dataclass(frozen=True, slots=True)
class Held:
    """What requests are looked after with."""

    access: ExhaustAccess
    calls: RequestCalls
    kept: Kept


async def asked_again(access: ExhaustAccess, row: RequestRow) -> Asked | None:
    """Return what a request asks for, as it is to be now; None when its licence may not have it any more.

    Raises:
        RegistryUnavailable: it cannot be told now.
    """
    try:
        licence = await access.licence_by_id(row.licence_id)
    except LoginError:
        return None
    ask = row.ask
    found = await access.dataset_for(licence, ask.dataset, ask.resource)
    if found is None:
        return None
    dataset, resource = found
    jobs = await jobs_of(access, dataset, resource, ask.variant, ask.period)
    return Asked("", licence, dataset, resource, ask.period, jobs)


async def as_it_is(held: Held, row: RequestRow) -> tuple[RequestRow, Asked | None]:
    """Return a request, and what it asks for now, see :func:`asked_again`.

    One whose days were revised, or whose dataset was declared anew, since they were built is built again: what was
    built before is removed at once.

    Raises:
        RegistryUnavailable: it cannot be told now.
    """
    asked = await asked_again(held.access, row)
    if row.status != "SUCCESS" or row.tag is None or asked is None or etag(asked.keys) == row.tag:
        return row, asked
    await held.calls.change(Requests.reopen, row.id, row.tag)
    await asyncio.to_thread(held.kept.remove, row.id, row.tag)
    return await held.calls.read(Requests.get, row.id) or row, asked
