"""The envelope of every reply of exhaust, and its error codes. Pure but for the time and the request's id."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from midstream.request_ids import current_request_id

API_ID = "ekstep.data_exhaust_dataset_service"
API_VERSION = "1.0"

INVALID_DATA = "INVALID_DATA_ERROR"
INVALID_DATE = "INVALID_DATE"
TOO_LARGE = "DATE_RANGE_TOO_LARGE"
LOGIN_FAILED = "LOGIN_FAILED"
NOT_AUTHORIZED = "AUTHORIZATION_FAILED"
INTERNAL = "INTERNAL_ERROR"
TOO_MANY = "TOO_MANY_REQUESTS"


def envelope(msgid: str, *, err: str | None = None, errmsg: str | None = None, **more: Any) -> dict[str, Any]:
    """Return the envelope of a reply; ``err`` makes it a failed one."""
    return {
        "id": API_ID,
        "ver": API_VERSION,
        "ts": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "params": {
            "resmsgid": current_request_id(),
            "msgid": msgid,
            "status": "failed" if err else "successful",
            "err": err,
            "errmsg": errmsg,
        },
        **more,
    }
