"""What a request asks for, checked in the contract's order: body, licence, right, dates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, TypeGuard

import msgspec
from fastapi import Request
from fastapi.security import HTTPBearer

from midstream.exhaust.dataset import Dataset
from midstream.exhaust.manifest import Note
from midstream.exhaust.period import MAX_DAYS, Period, PeriodError, TooManyDaysError, read_period
from midstream.exhaust.variant import DayKey, Variant, VariantError, read_variant
from midstream.registry.exhaust.access import ExhaustAccess, LicenceInfo
from midstream.registry.exhaust.errors import LoginError
from serve.assignments.paths import decoded
from serve.bodies import read_raw
from serve.errors import ApiError
from serve.exhaust import refused
from serve.exhaust.days.builder.job import Job
from serve.exhaust.envelope import INVALID_DATA, INVALID_DATE, LOGIN_FAILED, NOT_AUTHORIZED, TOO_LARGE

MAX_BODY_BYTES = 64 * 1024

# Only declares the scheme in the OpenAPI document.
LICENCE = HTTPBearer(
    scheme_name="licence key",
    description="`Bearer KEY`, with a key of `midstream licence create NAME`.",
    auto_error=False,
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a body says, as far as it counts."""

    msgid: str
    key: str | None
    request: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may be answered, if its days can be."""

    msgid: str
    licence: LicenceInfo
    dataset: Dataset
    resource: str
    period: Period
    jobs: tuple[Job, ...]

    @property
    def keys(self) -> list[DayKey]:
        """Which bytes are asked for."""
        return [job.key for job in self.jobs]

    @property
    def variant(self) -> Variant:
        """In which form, and which of the events."""
        return self.jobs[0].variant


async def read_said(request: Request, timeout_ms: int) -> Said:
    """Read a request's body.

    Raises:
        RefusedError: 400, it is no JSON object with a ``request``.
    """
    try:
        body = await read_raw(request, max_bytes=MAX_BODY_BYTES, timeout_ms=timeout_ms)
        said = msgspec.json.decode(body)
    except ApiError as error:
        raise refused.refused(400, INVALID_DATA, error.message) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refused.refused(400, INVALID_DATA, f"the body is no JSON: {error}") from None
    except RecursionError:
        raise refused.refused(400, INVALID_DATA, "the body is nested too deeply") from None
    if not isinstance(said, dict):
        raise refused.refused(400, INVALID_DATA, "the body is no object")
    params = said.get("params")
    msgid = params.get("msgid") if isinstance(params, dict) else None
    msgid = msgid if isinstance(msgid, str) and len(msgid) <= 256 else ""
    inner = said.get("request")
    if not isinstance(inner, dict):
        raise refused.refused(400, INVALID_DATA, "the body has no object `request`", msgid)
    key = inner.get("licensekey", inner.get("licenseKey"))
    return Said(msgid, key if isinstance(key, str) else None, inner)


def bearer_of(request: Request) -> str | None:
    """Return the licence key of ``Authorization: Bearer KEY``; None without one."""
    scheme, _, key = (request.headers.get("authorization") or "").strip().partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


async def said_by(request: Request, timeout_ms: int) -> Said:
    """Return what a request says: a POST in its body, others in their header.

    Raises:
        RefusedError: 400, the body cannot be used.
    """
    if request.method == "POST":
        return await read_said(request, timeout_ms)
    return Said("", bearer_of(request), {})


async def licence_of(access: ExhaustAccess, said: Said) -> LicenceInfo:
    """Return whose key it is.

    Raises:
        RefusedError: 401, none, nobody's, revoked or expired.
    """
    try:
        return await access.licence_of(said.key)
    except LoginError:
        raise refused.refused(401, LOGIN_FAILED, "the licence key is missing, unknown or revoked", said.msgid) from None


def asked_variant(said: Said, format_: object, eids: object, channels: object) -> Variant:
    """Return the form and the filters that are asked for.

    Raises:
        RefusedError: 400, they cannot be.
    """
    if not isinstance(format_, str) or not _is_texts(eids) or not _is_texts(channels):
        raise refused.refused(400, INVALID_DATA, "format is a text, eid and channel are lists of texts", said.msgid)
    try:
        return read_variant(format_ or "jsonl", eids, channels)
    except VariantError as error:
        raise refused.refused(400, INVALID_DATA, str(error), said.msgid) from None


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


async def asked_for(
    access: ExhaustAccess,
    said: Said,
    variant: Variant,
    dataset: str,
    resource: str,
    first: str | None,
    last: str | None,
    *,
    most_days: int = MAX_DAYS,
    today: Callable[[], date] = lambda: datetime.now(UTC).date(),
) -> Asked:
    """Return what is asked for.

    Args:
        access: the licences.
        said: the body, or what stands for it.
        variant: the form.
        dataset: as the path has it.
        resource: the same.
        first: the first day; None: yesterday.
        last: the last day; None: yesterday.
        most_days: that may be asked for.
        today: tells the day that it is, UTC.

    Raises:
        RefusedError: 401 LOGIN_FAILED, 403 AUTHORIZATION_FAILED, 400 INVALID_DATE or DATE_RANGE_TOO_LARGE, 410
            INVALID_DATE.
        RegistryUnavailable: it cannot be told now.
    """
    licence = await licence_of(access, said)
    found = await access.dataset_for(licence, dataset, resource)
    if found is None:
        message = "the licence has no right to this dataset or resource"
        raise refused.refused(403, NOT_AUTHORIZED, message, said.msgid)
    declared, key = found
    access.note_use(licence)
    now = today()
    try:
        period = read_period(first, last, now, most=most_days)
    except TooManyDaysError as error:
        raise refused.refused(400, TOO_LARGE, str(error), said.msgid) from None
    except PeriodError as error:
        raise refused.refused(400, INVALID_DATE, str(error), said.msgid) from None
    if declared.retention_days and (now - period.first).days > declared.retention_days:
        message = f"the day {period.first} is past the retention of {declared.retention_days} days"
        raise refused.refused(410, INVALID_DATE, message, said.msgid)
    jobs = await jobs_of(access, declared, key, variant, period)
    return Asked(said.msgid, licence, declared, key, period, jobs)


async def jobs_of(
    access: ExhaustAccess, dataset: Dataset, resource: str, variant: Variant, period: Period
) -> tuple[Job, ...]:
    """Return what builds the days of a period, as they are to be now.

    Raises:
        RegistryUnavailable: it cannot be told now.
    """
    revisions = await access.revisions(dataset, resource, period.first, period.last)
    jobs = []
    for day in period:
        made = revisions.get(day, ())
        notes = tuple(Note(one.at.isoformat(timespec="seconds").replace("+00:00", "Z"), one.reason) for one in made)
        number = made[-1].number if made else 0
        jobs.append(Job(dataset, resource, variant, day, number, notes))
    return tuple(jobs)


def text_of(part: str) -> str:
    """Return a part of a path as text; what is none becomes one that nothing has."""
    return decoded(part) or ""
