"""Parsing one event exactly: what the fast parser cannot read, or cannot vouch for, is decided here.

Each check raises :class:`TextError`. The order in :func:`parse_event` fixes which of two faults of one text is named.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from typing import Any, NoReturn

from midstream.codes import Reason
from midstream.jsonscan import nesting_depth

_ESCAPE = re.compile(
    rb"\\(?:u(?P<high>[dD][89abAB][0-9a-fA-F]{2})(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?+"
    rb"|u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_PAIR_BYTES = len(rb"\ud800\udc00")
_INTEGER_DIGITS = 20  # of 2**64 - 1


class TextError(ValueError):
    """The text of an event is refused before its schema is asked."""

    def __init__(self, reason: Reason, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.pointer = pointer


def parse_event(raw: bytes, max_depth: int) -> Any:
    """Return the value of an event's text; UTF-8 is looked at first, then depth, then grammar, then doubled keys.

    Numbers are read as the fast parser reads them: integers beyond 64 bits as floats. What is beyond the range of a
    float is read as the largest float, since a number must stay a number for whoever writes it again.

    Raises:
        TextError: with the reason.
    """
    check_utf8(raw)
    depth = nesting_depth(raw)
    if depth > max_depth:
        raise TextError(Reason.TOO_DEEP, f"objects and arrays are nested {depth} deep, the limit is {max_depth}")
    any_doubled = False

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal any_doubled
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        any_doubled = True
        return _Doubled(pairs)

    try:
        value = json.loads(
            raw.decode(),
            object_pairs_hook=make_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_refuse_constant,
        )
    except ValueError as error:
        raise TextError(Reason.INVALID_JSON, str(error)) from error
    if any_doubled:
        _refuse_doubled(value)
    return value


def escape_pointer(*parts: str | int) -> str:
    """Return an RFC 6901 pointer."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def check_utf8(raw: bytes) -> None:
    """Check that a text is UTF-8 and that none of its escapes is half a surrogate pair.

    Raises:
        TextError: INVALID_UTF8, with the offset.
    """
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise TextError(
            Reason.INVALID_UTF8, f"byte 0x{raw[error.start]:02x} at offset {error.start} is not UTF-8"
        ) from error
    for match in _ESCAPE.finditer(raw):
        is_lone = match["low"] is not None or (match["high"] is not None and match.end() - match.start() < _PAIR_BYTES)
        if is_lone:
            raise TextError(
                Reason.INVALID_UTF8, f"{match.group().decode()} at offset {match.start()} is half a surrogate pair"
            )


class _Doubled(dict[str, Any]):
    """An object that names a key twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs)
        self.key = next(key for key, _ in pairs if counts[key] > 1)


def _refuse_doubled(value: Any) -> None:
    waiting: list[tuple[Any, tuple[str | int, ...]]] = [(value, ())]
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, _Doubled):
            key = value.key
            raise TextError(
                Reason.INVALID_JSON, f"the key {key[:100]!r} stands twice in one object", escape_pointer(*path, key)
            )
        if isinstance(value, dict):
            waiting.extend((item, (*path, key)) for key, item in value.items() if isinstance(item, dict | list))
        elif isinstance(value, list):
            waiting.extend((item, (*path, at)) for at, item in enumerate(value) if isinstance(item, dict | list))


def _integer(digits: str) -> int | float:
    if len(digits) <= _INTEGER_DIGITS:
        value = int(digits)
        if -(2**63) <= value < 2**64:
            return value
    return _float(digits)


def _float(digits: str) -> float:
    return max(-sys.float_info.max, min(float(digits), sys.float_info.max))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
