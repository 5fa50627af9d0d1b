"""Refusals in the envelope that partners' clients know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serve.assignments.refused import RefusedError
from serve.exhaust.envelope import (
    API_ID,
    API_VERSION,
    INTERNAL,
    INVALID_DATA,
    INVALID_DATE,
    LOGIN_FAILED,
    NOT_AUTHORIZED,
    TOO_LARGE,
    envelope,
)

RETRY_AFTER_S = 30

_RESMSGID = "9a0f1c1e-0000-4000-8000-000000000000"
_DAY = "2026-01-01"
_EXAMPLES = {
    400: (
        (INVALID_DATA, "the body has no object `request`"),
        (INVALID_DATE, "fromDate is no day of the calendar: 2026-02-30"),
        (TOO_LARGE, "32 days were asked for; at most 31 are given at once"),
    ),
    401: ((LOGIN_FAILED, "the licence key is missing, unknown or revoked"),),
    403: ((NOT_AUTHORIZED, "the licence has no right to this dataset or resource"),),
    410: ((INVALID_DATE, f"the day {_DAY} is past the retention of 365 days"),),
    500: ((INTERNAL, f"the day {_DAY}: it could not be built; the server's log says why"),),
    503: ((INTERNAL, f"the day {_DAY} is not closed yet: something received in it may still be in flight"),),
}
_MEANINGS = {
    400: "What no retry can mend.",
    401: "The licence key is missing, unknown or revoked.",
    403: "The key has no right to that dataset or resource, or there is none.",
    410: "A day past its retention.",
    500: "A day could not be built.",
    503: "A day is not closed yet or is being built, or a part is away; see Retry-After.",
}


def refused(status: int, err: str, errmsg: str, msgid: str = "") -> RefusedError:
    """Return a refusal; a 429 and a 503 say when to ask again."""
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return RefusedError(status, envelope(msgid, err=err, errmsg=errmsg), headers)


def replies(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route for these statuses, with an example of each code."""
    return {status: {"description": _MEANINGS[status], "content": _content(_EXAMPLES[status])} for status in statuses}


def _content(examples: Iterable[tuple[str, str]]) -> dict[str, Any]:
    return {"application/json": {"examples": {code: {"value": _example(code, errmsg)} for code, errmsg in examples}}}


def _example(err: str, errmsg: str) -> dict[str, Any]:
    params = {"resmsgid": _RESMSGID, "msgid": "m-1", "status": "failed", "err": err, "errmsg": errmsg}
    return {"id": API_ID, "ver": API_VERSION, "ts": "2026-01-02T00:00:00.000Z", "params": params}
