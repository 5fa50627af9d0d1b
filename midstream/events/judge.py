"""Judging one event: accepted, or refused with a reason code, a JSON pointer and a message.

Three ways, one verdict. The quick one (:mod:`midstream.events.quick`) and the fast one (orjson and the Rust validator)
may only ever accept. Whatever they do not accept goes the slow way, where Python's parser and the reference
implementation of JSON Schema decide and word the refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import orjson

from midstream.codes import Reason
from midstream.events.faults import find_fault
from midstream.events.quick import QuickReader
from midstream.events.schemas import Schemas
from midstream.events.text import TextError, escape_pointer, parse_event
from midstream.events.typed import ValidEvent, from_parsed
from midstream.jsonscan import ScanError, nesting_depth, scan_members, skip_space

_VERSIONS = ("3.0", "3.1")
_MAX_MESSAGE_CHARS = 500
_MAX_POINTER_CHARS = 1_000
_MAX_MID_BYTES = 16 * 1024  # of a refused event; whatever is longer stays in its original text
_MAX_ID_BYTES = 1024
_LARGE_BYTES = 8 * 1024


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The event is valid."""

    event: dict[str, Any]
    """It, parsed. Numbers are ints of 64 bits or finite floats, strings can be written as UTF-8."""


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The event is a dead letter."""

    reason: Reason
    pointer: str
    """RFC 6901, of the field to correct (one that is missing too); "" for the event itself."""
    message: str
    mid: str = ""
    """"" if it cannot be read; so with those that follow."""
    eid: str = ""
    did: str = ""
    """Of ``context``, as ``channel``."""
    channel: str = ""


Verdict = Accepted | Refused


class Judge:
    """Judges events by a set of schemas.

    Args:
        schemas: see :func:`midstream.events.schemas.load_schemas`.
        max_event_bytes: size of the largest event.
        max_depth: deepest nesting of objects and arrays, the event itself being the first level; at most 250, since
            orjson does not write what is nested deeper than 254 levels.
    """

    def __init__(self, schemas: Schemas, max_event_bytes: int, max_depth: int) -> None:
        self._schemas = schemas
        self._max_event_bytes = max_event_bytes
        self._max_depth = max_depth
        self._quick = QuickReader(schemas, max_event_bytes, max_depth)
        self._fast: dict[Any, Callable[[Any], bool]] = {
            eid: schema.fast.is_valid for eid, schema in schemas.items() if schema.fast is not None
        }

    def judge_many(self, raws: Sequence[bytes]) -> list[ValidEvent | Refused]:
        """Judge the texts of some events, each as :meth:`judge` does. Never raises for what stands in them."""
        return [
            event if event is not None else self._judge_for_row(raw)
            for event, raw in zip(self._quick.read(raws), raws, strict=True)
        ]

    def _judge_for_row(self, raw: bytes) -> ValidEvent | Refused:
        verdict = self.judge(raw)
        return verdict if isinstance(verdict, Refused) else from_parsed(verdict.event, raw)

    def judge(self, raw: bytes) -> Verdict:
        """Judge the text of one event. Never raises for what stands in it."""
        if len(raw) <= self._max_event_bytes and (
            raw.count(b"{") + raw.count(b"[") <= self._max_depth or nesting_depth(raw) <= self._max_depth
        ):
            try:
                event = orjson.loads(raw)
            except orjson.JSONDecodeError:
                return self._judge_slowly(raw)
            if event.__class__ is dict and _has_single_keys(raw, event):
                eid = event.get("eid")
                is_valid = self._fast.get(eid) if eid.__class__ is str else None
                if is_valid is not None and is_valid(event):
                    return Accepted(event)
                return self._judge_parsed(event, raw)  # the slow parser would read the same
        return self._judge_slowly(raw)

    def _judge_slowly(self, raw: bytes) -> Verdict:
        if len(raw) > self._max_event_bytes:
            message = f"the event has {len(raw)} bytes, the limit is {self._max_event_bytes}"
            return _refuse(Reason.EVENT_TOO_LARGE, "", message, _scan_identity(raw))
        try:
            event = parse_event(raw, self._max_depth)
        except TextError as error:
            return _refuse(error.reason, error.pointer, error.message, _scan_identity(raw))
        if not isinstance(event, dict):
            return _refuse(Reason.NOT_AN_OBJECT, "", f"the event is {_kind(event)}, not an object", {})
        return self._judge_parsed(event, raw)

    def _judge_parsed(self, event: dict[str, Any], raw: bytes) -> Verdict:
        fault = self._find_fault(event, raw)
        return Accepted(event) if fault is None else _refuse(*fault, event)

    def _find_fault(self, event: dict[str, Any], raw: bytes) -> tuple[Reason, str, str] | None:
        mid = event.get("mid")
        if not isinstance(mid, str) or not mid:
            return Reason.MISSING_MID, "/mid", f"mid is {_kind(mid) if 'mid' in event else 'missing'}"
        eid = event.get("eid")
        schema = self._schemas.get(eid) if isinstance(eid, str) else None
        if schema is None:
            what = f"no schema for eid {eid[:100]!r}" if isinstance(eid, str) else f"eid is {_kind(eid)}"
            return Reason.UNKNOWN_EID, "/eid", what if "eid" in event else "eid is missing"
        version = event.get("ver")
        if isinstance(version, str) and version not in _VERSIONS:
            return Reason.UNKNOWN_VERSION, "/ver", f"ver is {version[:100]!r}, neither '3.0' nor '3.1'"
        try:
            fault = find_fault(schema, event, is_large=len(raw) > _LARGE_BYTES)
        except RecursionError:
            return Reason.TOO_DEEP, "", "the event is nested deeper than its schema can be followed"
        if fault is None:
            return None
        path, message = fault
        return Reason.SCHEMA_VIOLATION, escape_pointer(*path), message


def poison(raw: bytes, message: str) -> Refused:
    """Return the refusal of an event that cannot be worked on; what names it is looked for without parsing it."""
    return _refuse(Reason.POISON, "", message, _scan_identity(raw))


def _has_single_keys(raw: bytes, event: dict[str, Any]) -> bool:
    """Tell whether it is certain that no object of ``event`` named a key twice.

    A colon of the text ends a key or stands in a string. The parser drops a doubled key with its colon, and nothing
    adds one unless it was escaped; so as many colons as before are proof.
    """
    if b"\\" in raw and (b"\\u003a" in raw or b"\\u003A" in raw):
        return False
    return raw.count(b":") == orjson.dumps(event).count(b":")


def _refuse(reason: Reason, pointer: str, message: str, identity: dict[str, Any]) -> Refused:
    context = identity.get("context")
    if not isinstance(context, dict):
        context = {}
    return Refused(
        reason,
        pointer if len(pointer) <= _MAX_POINTER_CHARS else "",
        message if len(message) <= _MAX_MESSAGE_CHARS else message[: _MAX_MESSAGE_CHARS - 1] + "…",
        _readable(identity.get("mid"), _MAX_MID_BYTES),
        _readable(identity.get("eid"), _MAX_ID_BYTES),
        _readable(context.get("did"), _MAX_ID_BYTES),
        _readable(context.get("channel"), _MAX_ID_BYTES),
    )


def _readable(value: object, max_bytes: int) -> str:
    if not isinstance(value, str):
        return ""
    try:
        return value if len(value.encode()) <= max_bytes else ""
    except UnicodeEncodeError:
        return ""


def _scan_identity(raw: bytes) -> dict[str, Any]:
    """Return ``mid``, ``eid`` and ``context`` of a text that cannot be parsed whole, as far as they can be found."""
    identity = _scan_strings(raw, (b'"mid"', b'"eid"', b'"context"'))
    context = identity.pop("context", b"")
    found: dict[str, Any] = {name: _parse_string(text) for name, text in identity.items()}
    found["context"] = {
        name: _parse_string(text) for name, text in _scan_strings(context, (b'"did"', b'"channel"')).items()
    }
    return found


def _scan_strings(raw: bytes, keys: tuple[bytes, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    start = skip_space(raw, 0)
    if raw[start : start + 1] != b"{":
        return found
    try:
        for key, text in scan_members(raw, start):
            if key in keys:
                found[key.decode().strip('"')] = text
    except ScanError:
        return found
    return found


def _parse_string(text: bytes) -> object:
    try:
        return orjson.loads(text) if text.startswith(b'"') else None
    except orjson.JSONDecodeError:
        return None


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "a string" if value else "empty"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        return "an array"
    return "null" if value is None else "an object"
