"""A device's report: from the JSON that it sent to values, times and an identity.

Times are microseconds since 1970 (UTC): devices that report several times a millisecond keep their order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

import msgspec
import orjson

Value = int | float | bool | str
Status = Literal["online", "offline", "error"]

STATUSES: frozenset[str] = frozenset({"online", "offline", "error"})
STATUS_KEY = "status"
"""Under this key the report's ``status`` stands in the state, whatever its telemetries say."""

MAX_STRING_BYTES = 1_000
MAX_MESSAGE_BYTES = 128 * 1024
MAX_KEYS = 10_000
MAX_KEY_BYTES = 1_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FRACTION = re.compile(r"(?<=\.)\d+")


class ReportError(ValueError):
    """A report that is refused; the message is for the device's maker."""


class Report(msgspec.Struct, frozen=True):
    """One report as it was received once."""

    device_id: str
    received_at_us: int
    receipt_id: str
    """Of this receipt: a record that Kafka delivers twice is one receipt."""
    digest: bytes
    """SHA-256 of what was sent, in canonical JSON; 32 bytes."""
    status: Status
    values: dict[str, Value | None]
    """By key; None removes it. ``status`` is one of them."""
    override: bool = False
    """Whether the values replace the whole state."""
    timestamp_us: int | None = None
    """The device's own time; None where it gave none."""
    message: str = ""


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body.

    Raises:
        ReportError: it is no JSON, or no object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ReportError("The body must be JSON") from None
    if not isinstance(value, dict):
        raise ReportError("The body must be a JSON object")
    return value


def read_report(device_id: str, sent: Mapping[str, Any], received_at_us: int, receipt_id: str) -> Report:
    """Return the report that a device sent.

    Members that nobody knows are left alone, and count for its identity.

    Raises:
        ReportError: with what the reply says.
    """
    status = sent.get("status")
    if not isinstance(status, str) or status not in STATUSES:
        raise ReportError("status must be online, offline or error")
    values = _read_values(sent.get("telemetries"))
    values[STATUS_KEY] = status
    override = sent.get("override")
    if override is not None and not isinstance(override, bool):
        raise ReportError("override must be true or false")
    message = sent.get("message")
    if message is not None and not isinstance(message, str):
        raise ReportError("message must be a string")
    if message and len(message.encode()) > MAX_MESSAGE_BYTES:
        raise ReportError(f"message must not be longer than {MAX_MESSAGE_BYTES} bytes")
    return Report(
        device_id,
        received_at_us,
        receipt_id,
        digest_of(sent),
        cast("Status", status),
        values,
        bool(override),
        read_timestamp(sent.get("timestamp")),
        message or "",
    )


def digest_of(sent: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of canonical JSON: keys in the order of their code points, no white space, UTF-8."""
    return hashlib.sha256(orjson.dumps(sent, option=orjson.OPT_SORT_KEYS)).digest()


def read_timestamp(text: object) -> int | None:
    """Return an ISO 8601 moment as microseconds since 1970, None for none. One without a zone is UTC; digits beyond
    the microsecond do not count.

    Raises:
        ReportError: it is no such moment.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise ReportError("timestamp must be a string in ISO 8601")
    try:
        # fromisoformat() takes three or six digits of a second and nothing else.
        moment = datetime.fromisoformat(_FRACTION.sub(lambda digits: digits[0][:6].ljust(6, "0"), text.strip(), 1))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        raise ReportError("timestamp must be a moment in ISO 8601, such as 2026-01-31T12:00:00Z") from None


def _read_values(telemetries: object) -> dict[str, Value | None]:
    if telemetries is None:
        return {}
    if not isinstance(telemetries, dict):
        raise ReportError("telemetries must be an object")
    if len(telemetries) > MAX_KEYS:
        raise ReportError(f"telemetries must not have more than {MAX_KEYS} keys")
    for key, value in telemetries.items():
        if len(key.encode()) > MAX_KEY_BYTES:
            raise ReportError(f"A key of telemetries must not be longer than {MAX_KEY_BYTES} bytes")
        if value is not None and not isinstance(value, int | float | str):
            raise ReportError(f"Common telemetries.{key} must be string, number or boolean")
        if isinstance(value, str) and len(value.encode()) > MAX_STRING_BYTES:
            raise ReportError(f"Common telemetries.{key} must not be longer than {MAX_STRING_BYTES} bytes")
    return dict(telemetries)
