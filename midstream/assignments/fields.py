"""The fields of a write: from the body that a platform sent to values, or to what the reply says of its errors."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from midstream.assignments.duration import WRONG_FORMAT, DurationError, read_duration
from midstream.assignments.text import BOM, JsonError, check_kept, read_members

Value = bytes | float | int | None
"""Of ``telemetry`` and ``metrics`` the object's JSON text, of scores a float, of ``total_time`` microseconds."""

OBJECTS = ("telemetry", "metrics")
SCORES = ("engagement_score", "frustration_score", "completion_rate")
FIELDS = (*OBJECTS, *SCORES, "metrics_algo_version", "total_time")
"""In the order of the reply."""
_NUMBERS = FIELDS[len(OBJECTS) :]  # or a duration, which may be a number of seconds

MIN_SCORE, MAX_SCORE = 0, 100

_NOT_A_NUMBER = "A valid number is required."
_TOO_LOW = f"Ensure this value is greater than or equal to {MIN_SCORE}."
_TOO_HIGH = f"Ensure this value is less than or equal to {MAX_SCORE}."
_MAX_CHARACTERS = 1_000  # of a number written as a string

_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[ \t\n\v\f\r]*")
_NULL = b"null"
_ABSENT = object()
_KINDS = {'"': "str", "{": "dict", "[": "list", "t": "bool", "f": "bool", "n": "NoneType"}


class BodyError(ValueError):
    """A body that is refused; ``reply`` is the JSON object of the 400."""

    def __init__(self, reply: dict[str, Any]) -> None:
        super().__init__(json.dumps(reply, ensure_ascii=False))
        self.reply = reply


class _FieldError(ValueError):
    """A field that is refused; the message stands under its name."""


def read_write(body: bytes) -> dict[str, Value]:
    """Return what a body gives of the fields: what it leaves out is absent, what it clears is None.

    A key that stands twice counts as it stands last. Nothing, or white space alone, is an empty object.

    Raises:
        BodyError: it is no JSON, no object, or at least one field is refused; then all of these are named.
    """
    try:
        members = read_members(body, FIELDS, _NUMBERS)
    except JsonError as error:
        raise _unreadable(str(error)) from None
    if isinstance(members, bytes):
        raise _no_object(members)
    for name in OBJECTS:
        if name in members:
            try:
                check_kept(members[name])
            except JsonError as error:
                raise _unreadable(f"in {name}: {error}") from None
    values: dict[str, Value] = {}
    errors: dict[str, list[str]] = {}
    for name, text in members.items():
        try:
            values[name] = None if text == _NULL else _read_value(name, text)
        except (_FieldError, DurationError) as error:
            errors[name] = [str(error)]
    if errors:
        raise BodyError(errors)
    return values


@dataclass(frozen=True, slots=True)
class OwnTelemetry:
    """Telemetry that names its asset by itself."""

    telemetry: bytes
    slug: str


def read_own(body: bytes) -> OwnTelemetry:
    """Return a body that is the telemetry itself, whose ``slug`` names the asset.

    Raises:
        BodyError: it is no JSON, no object, or its slug is none.
    """
    try:
        members = read_members(body, ("slug",), ())
        if isinstance(members, bytes):
            raise _no_object(members)
        telemetry = body.removeprefix(BOM).strip()
        check_kept(telemetry)
    except JsonError as error:
        raise _unreadable(str(error)) from None
    slug = msgspec.json.decode(members["slug"]) if "slug" in members else _ABSENT
    if slug is _ABSENT:
        raise BodyError({"slug": ["This field is required."]})
    if not isinstance(slug, str):
        raise BodyError({"slug": ["This field may not be null." if slug is None else "Not a valid string."]})
    if not slug:
        raise BodyError({"slug": ["This field may not be blank."]})
    return OwnTelemetry(telemetry, slug)


def _no_object(text: bytes) -> BodyError:
    message = f"Invalid data. Expected a dictionary, but got {_kind(text)}."
    return BodyError({"non_field_errors": [message]})


def _unreadable(why: str) -> BodyError:
    return BodyError({"detail": f"JSON parse error - {why}", "status_code": 400})


def _read_value(name: str, text: bytes) -> Value:
    if name in OBJECTS:
        if not text.startswith(b"{"):
            raise _FieldError(f'Expected a dictionary of items but got type "{_kind(text)}".')
        return text
    if name == "total_time":
        return _read_time(text)
    number = _read_number(text)
    if name in SCORES and number > MAX_SCORE:
        raise _FieldError(_TOO_HIGH)
    if name in SCORES and number < MIN_SCORE:
        raise _FieldError(_TOO_LOW)
    return number


def _read_number(text: bytes) -> float:
    kind = _kind(text)
    if kind == "str":
        string = msgspec.json.decode(text, type=str)
        match = _NUMBER.fullmatch(string) if len(string) <= _MAX_CHARACTERS else None
        number = float(match[1]) if match is not None else math.inf
    else:
        number = float(text) if kind in ("int", "float") else math.inf
    if not math.isfinite(number):
        raise _FieldError(_NOT_A_NUMBER)
    return number + 0.0  # no minus before a zero


def _read_time(text: bytes) -> int:
    kind = _kind(text)
    if kind == "str":
        return read_duration(msgspec.json.decode(text, type=str))
    if kind == "int" and len(text) <= _MAX_CHARACTERS:
        return read_duration(int(text))
    if kind in ("int", "float"):
        number = float(text)
        # Beyond a float's range it is still seconds: too many, or fewer than none.
        return read_duration(number if math.isfinite(number) else int(math.copysign(10**30, number)))
    raise DurationError(WRONG_FORMAT)


def _kind(text: bytes) -> str:
    """Return Python's name for what a JSON text holds."""
    kind = _KINDS.get(chr(text[0]))
    if kind is None:
        kind = "float" if any(mark in text for mark in b".eE") else "int"
    return kind
