"""The envelope of a sync's reply, and its error codes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from midstream.request_ids import current_request_id

PATH = "/api/data/v1/index"
"""Under it all replies have this envelope."""

API_ID = "api.data.sync"
API_VERSION = "v1"

NO_TYPE = "UOS_0003"
BAD_SHAPE = "UOS_0028"
NO_JSON = "UOS_0061"
UNKNOWN_TYPE = "UOS_0072"
SERVER_ERROR = "SERVER_ERROR"


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return by what a client knows its request: ``x-request-id``, else ``X-msgid``; None without either."""
    return headers.get("x-request-id") or headers.get("x-msgid") or None


def good_reply(message_id: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a reply that says what was begun."""
    return _envelope(message_id, "SUCCESS", "OK", {"response": "SUCCESS", **result})


def refusal(headers: Mapping[str, str], status: int, code: str, message: str) -> dict[str, Any]:
    """Return the body of a reply that refuses."""
    is_ours = status >= 500
    body = _envelope(
        request_id_of(headers) or current_request_id(),
        "FAILED",
        "SERVER_ERROR" if is_ours else "CLIENT_ERROR",
        {},
        err=SERVER_ERROR if is_ours else code,
        errmsg=message,
    )
    if status == 401:
        body["message"] = "Unauthorized"  # what clients of a gateway before the API look for
    return body


def _envelope(
    message_id: str,
    status: str,
    response_code: str,
    result: Mapping[str, Any],
    err: str | None = None,
    errmsg: str | None = None,
) -> dict[str, Any]:
    params = {"resmsgid": message_id, "msgid": message_id, "err": err, "status": status, "errmsg": errmsg}
    return {
        "id": API_ID,
        "ver": API_VERSION,
        "ts": written(datetime.now(UTC)),
        "params": params,
        "responseCode": response_code,
        "result": dict(result),
    }


def written(moment: datetime) -> str:
    """Return a moment as this envelope has it: ``2023-09-20 12:02:24:452+0000``."""
    return f"{moment:%Y-%m-%d %H:%M:%S}:{moment.microsecond // 1000:03}+0000"
