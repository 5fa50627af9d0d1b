"""The envelope of every reply of the device register. Pure but for the time and the request's id.

Its form, and the two ids, are those of Sunbird's analytics service, whose device API its clients call
(https://docs.sunbird.org/3.6.0/apis/deviceapi).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from midstream.request_ids import current_request_id

ROOT = "/v3/device"
REGISTER = f"{ROOT}/register"
PROFILE = f"{ROOT}/profile"

REGISTER_ID = "analytics.device-register"
PROFILE_ID = "analytics.device-profile"
_VERSION = "1.0"


def good_reply(path: str, result: dict[str, Any], msgid: str | None = None) -> dict[str, Any]:
    """Return the body of a good reply; ``msgid`` is the request's own."""
    return _envelope(path, {"msgid": msgid, "status": "successful", "err": None, "errmsg": None}, "OK", result)


def error_body(path: str, status: int, code: str, message: str, **details: Any) -> dict[str, Any]:
    """Return the body of an error reply; ``details`` are more members of ``params``."""
    params = {"msgid": None, "status": "failed", "err": code, "errmsg": message, **details}
    body = _envelope(path, params, "CLIENT_ERROR" if status < 500 else "SERVER_ERROR", {})
    return body | {"message": "Unauthorized"} if status == 401 else body


def _envelope(path: str, params: dict[str, Any], response_code: str, result: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": REGISTER_ID if path.startswith(REGISTER) else PROFILE_ID,
        "ver": _VERSION,
        "ts": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "params": {"resmsgid": current_request_id(), **params},
        "responseCode": response_code,
        "result": result,
    }
