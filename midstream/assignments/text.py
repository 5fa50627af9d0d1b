"""The text of a write's body: taken apart into its members without building what they hold.

What is kept of it is JSON that every parser reads back: UTF-8, whole surrogate pairs, numbers that are finite as
floats, at most :data:`MAX_DEPTH` levels deep. The quick checks here may only ever say "fine"; what they doubt is
parsed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from typing import NoReturn

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from midstream.events.text import TextError, check_utf8
from midstream.jsonscan import ScanError, first_member, nesting_depth, next_member, scan_key, skip_space, skip_value

MAX_DEPTH = 200
"""Of objects and arrays in one another; Python's own parser, deep in a call stack, stops at some hundreds."""

_SPACES = b" \t\n\r"
BOM = b"\xef\xbb\xbf"
_NOT_NUMBERS = (b"NaN", b"Infinity", b"-Infinity")
_TOO_DEEP = f"objects and arrays are nested deeper than {MAX_DEPTH}"

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any = msgspec.json.Decoder(msgspec.Raw)

_STRING_OR_NUMBER = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(?P<constant>NaN|-?Infinity)|(?P<number>-?[0-9][0-9.eE+-]*+)', re.DOTALL
)
_SHOWN_CHARACTERS = 10

_CHUNK_BYTES = 32_000
_QUOTE, _BACKSLASH, _PLUS, _ZERO = (np.uint8(byte) for byte in b'"\\+0')
_CASE = np.uint8(0x20)  # the bit that tells "{" from "[", "}" from "]" and "e" from "E"
_OPENING, _CLOSING, _EXPONENT = (np.uint8(byte) for byte in b"{}e")
_EXPONENT_BYTES = len("0e+999")
_DIGITS_SAFE = 100  # fewer than 200 digits with an exponent of two are below 1e308; 200 fill an aligned block


class JsonError(ValueError):
    """A body is no JSON that can be kept; the message says where."""


def read_members(body: bytes, names: Collection[str], numbers: Collection[str]) -> dict[str, bytes] | bytes:
    """Return the text of each member that is named, of the last where a key stands twice; no white space around it.

    ``NaN``, ``Infinity`` and ``-Infinity``, which are no JSON, come back as some string where they are one of the
    ``numbers``.

    Returns:
        The members by name, in the order of ``names``; the whole text, if it is JSON but no object.

    Raises:
        JsonError: it is no JSON.
    """
    text = body.removeprefix(BOM)
    if not text.strip(_SPACES):
        return {}
    try:
        text.decode()
        try:
            found = _read(text)
        except msgspec.DecodeError:
            text = _quote_not_numbers(text, numbers)
            found = _read(text)
    except RecursionError:
        raise JsonError(_TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _explain(text, str(error))
    if isinstance(found, bytes):
        return found
    return {name: bytes(found[name]).strip(_SPACES) for name in names if name in found}


def check_kept(text: bytes) -> None:
    """Check that all numbers of a JSON text are finite as floats, and that it is at most :data:`MAX_DEPTH` deep.

    Raises:
        JsonError: it is not.
    """
    if len(text) > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise JsonError(f"objects and arrays are nested {nesting_depth(text)} deep, the limit is {MAX_DEPTH}")
    if _may_be_infinite(text):
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise JsonError(_infinite(text) or str(error)) from None


def _read(text: bytes) -> dict[str, msgspec.Raw] | bytes:
    try:
        return _members.decode(text)
    except msgspec.ValidationError:  # no object; the rest has not been looked at
        return bytes(_any.decode(text)).strip(_SPACES)


def _quote_not_numbers(text: bytes, names: Collection[str]) -> bytes:
    """Return the text with each named member that is NaN or an infinity as a string of the same length."""
    if b"NaN" not in text and b"Infinity" not in text:
        return text
    changed = bytearray(text)
    try:
        key_at = first_member(text, skip_space(text, 0))
        while key_at is not None:
            key, start = scan_key(text, key_at)
            end = skip_value(text, start)
            value = text[start:end].rstrip(_SPACES)
            if value in _NOT_NUMBERS and _key_of(key) in names:
                changed[start : start + len(value)] = b'"' + value[1:-1] + b'"'
            key_at = next_member(text, end)
    except ScanError:
        pass  # whoever reads it next says what is wrong
    return bytes(changed)


def _key_of(quoted: bytes) -> str | None:
    try:
        return msgspec.json.decode(quoted, type=str)
    except msgspec.DecodeError:
        return None


def _depth(text: bytes) -> int:
    """Return how deep valid JSON is nested, as :func:`midstream.jsonscan.nesting_depth` does, some times faster."""
    deepest = depth = 0
    is_inside, is_escaped = False, False  # of a string, at the beginning of a chunk
    for data in _chunks(text, 0):
        quotes, escapes = data == _QUOTE, data == _BACKSLASH
        if (is_escaped and escapes[0]) or (escapes[1:] & escapes[:-1]).any():
            # Which backslash escapes which: from left to right, in pairs.
            return _depth(text.replace(b"\\\\", b""))
        quotes[1:] &= ~escapes[:-1]
        quotes[0] &= not is_escaped
        folded = data | _CASE
        where = np.flatnonzero(quotes | (folded == _OPENING) | (folded == _CLOSING))
        strings = np.cumsum(quotes[where], dtype=np.int32) + is_inside
        brackets = folded[where[strings & 1 == 0]]  # and the quotes that end strings
        steps = (brackets == _OPENING).view(np.int8) - (brackets == _CLOSING).view(np.int8)
        depths = np.cumsum(steps, dtype=np.int32) + depth
        if len(depths):
            deepest, depth = max(deepest, int(depths.max())), int(depths[-1])
        if len(strings):
            is_inside = bool(strings[-1] & 1)
        is_escaped = bool(escapes[-1])
    return deepest


def _may_be_infinite(text: bytes) -> bool:
    """Whether some digits, be they in a string, could be a number beyond the floats: an exponent of three digits, or
    two hundred digits in a row."""
    for data in _chunks(text + b" ", _EXPONENT_BYTES):  # something follows each number, be it the whole text
        digits = (data - _ZERO) < 10  # unsigned: what is less wraps around
        blocks = len(digits) // _DIGITS_SAFE
        if digits[: blocks * _DIGITS_SAFE].reshape(blocks, _DIGITS_SAFE).all(axis=1).any():
            return True
        at = np.flatnonzero((data[1:-4] | _CASE == _EXPONENT) & digits[:-5]) + 1
        at += data[at + 1] == _PLUS
        if (digits[at + 1] & digits[at + 2] & digits[at + 3]).any():
            return True
    return False


def _chunks(text: bytes, more_bytes: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield a text's bytes in pieces that stay in the processor's cache, each with some bytes of the next one."""
    data = np.frombuffer(text, np.uint8)
    for at in range(0, len(data), _CHUNK_BYTES):
        yield data[at : at + _CHUNK_BYTES + more_bytes]


def _explain(text: bytes, otherwise: str) -> NoReturn:
    """Raise what is wrong with a text, in the words of Python's parser where it sees it: they name line and column."""
    try:
        check_utf8(text)
        json.loads(text.decode(), parse_int=len, parse_float=len, parse_constant=len)
    except RecursionError:
        raise JsonError(_TOO_DEEP) from None
    except TextError as error:
        raise JsonError(error.message) from None
    except json.JSONDecodeError as error:
        raise JsonError(str(error)) from None
    for match in _STRING_OR_NUMBER.finditer(text):
        if match["constant"]:
            raise JsonError(f"{match['constant'].decode()} at offset {match.start()} is not JSON")
    raise JsonError(otherwise.removeprefix("JSON is malformed: "))


def _infinite(text: bytes) -> str | None:
    for match in _STRING_OR_NUMBER.finditer(text):
        if match["number"] and math.isinf(float(match["number"])):
            digits = match["number"].decode()
            if len(digits) > _SHOWN_CHARACTERS:
                digits = f"{digits[:_SHOWN_CHARACTERS]}..."
            return f"the number {digits} at offset {match.start()} is out of range"
    return None
