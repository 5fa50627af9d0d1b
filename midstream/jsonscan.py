"""Finds where the parts of a JSON text begin and end, without reading them.

For texts that no parser takes whole: nested thousands deep, with NaN, with bytes that are not UTF-8. Only strings,
brackets and commas are looked at, so that a part which is no JSON still has bounds. Never recursive, and linear in the
text's length: every pattern is possessive and consumes what it looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACE = re.compile(rb"[ \t\n\r]*+")
_KEY = re.compile(_STRING, re.DOTALL)
_STRING_OR_REST = re.compile(_STRING + rb'|".*+', re.DOTALL)
# What stands between brackets, then a run of brackets: nothing where a string or the text ends early. The run is
# bounded because the caller may need only its first two, and come again for the next two.
_TO_BRACKETS = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+([\[\]{}]{1,32}+)?", re.DOTALL)
_TO_DELIMITER = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+([\[{,\]}])?", re.DOTALL)

_SPACES = b" \t\n\r"
_OPENING = b"[{"
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in _BRACKETS)
# Brackets as signed bytes: what each adds to the depth.
_STEPS = bytes.maketrans(_BRACKETS, b"\x01\xff\x01\xff")
_COMMA = ord(",")


class ScanError(ValueError):
    """The bounds cannot be found."""


def skip_space(data: bytes, at: int) -> int:
    """Return the offset of the first byte from ``at`` on that is no JSON white space."""
    match = _SPACE.match(data, at)
    assert match is not None  # noqa: S101  # the pattern matches the empty text
    return match.end()


def skip_container(data: bytes, at: int) -> int:
    """Return the offset after the object or array that opens at ``at``. Which bracket closes which is not looked at.

    Raises:
        ScanError: it, or a string in it, does not end.
    """
    depth = 0
    while True:
        match = _TO_BRACKETS.match(data, at)
        start, at = match.span(1) if match is not None else (-1, -1)
        if start < 0:
            raise ScanError("an array, an object or a string does not end")
        for offset in range(start, at):
            depth += 1 if data[offset] in _OPENING else -1
            if depth == 0:
                return offset + 1


def skip_value(data: bytes, at: int) -> int:
    """Return the offset of the comma or closing bracket that ends the value at ``at``.

    Raises:
        ScanError: see :func:`skip_container`.
    """
    while True:
        match = _TO_DELIMITER.match(data, at)
        delimiter = match.start(1) if match is not None else -1
        if delimiter < 0:
            raise ScanError("an array, an object or a string does not end")
        if data[delimiter] not in _OPENING:
            return delimiter
        at = skip_container(data, delimiter)


def scan_elements(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the text of each element of the array that opens at ``at``, and the offset after the array.

    Raises:
        ScanError: the array does not end, ends with a brace, or lacks an element between two commas.
    """
    at = skip_space(data, at + 1)
    elements: list[bytes] = []
    if data[at : at + 1] == b"]":
        return elements, at + 1
    while True:
        end = skip_value(data, at)
        element = data[at:end].strip(_SPACES)
        if not element:
            raise ScanError(f"element {len(elements)} of an array is empty")
        elements.append(element)
        if data[end] != _COMMA:
            break
        at = end + 1
    if data[end : end + 1] != b"]":
        raise ScanError("an array ends with a brace")
    return elements, end + 1


def first_member(data: bytes, at: int) -> int | None:
    """Return the offset of the first key of the object that opens at ``at``; None if it is empty."""
    at = skip_space(data, at + 1)
    return None if data[at : at + 1] == b"}" else at


def next_member(data: bytes, delimiter: int) -> int | None:
    """Return the offset of the key after what ended the value before it; None if that ended the object."""
    return skip_space(data, delimiter + 1) if data[delimiter] == _COMMA else None


def scan_key(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the key at ``at``, with its quotes, and the offset of its value.

    Raises:
        ScanError: there is no key, or no colon after it.
    """
    match = _KEY.match(data, at)
    if match is None:
        raise ScanError(f"no key at byte {at}")
    colon = skip_space(data, match.end())
    if data[colon : colon + 1] != b":":
        raise ScanError(f"no colon at byte {colon}")
    return match.group(), skip_space(data, colon + 1)


def scan_members(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield ``(key with its quotes, text of the value)`` of the object that opens at ``at``.

    What has been yielded before an error stands.

    Raises:
        ScanError: a key or colon is missing, or the object does not end.
    """
    key_at = first_member(data, at)
    while key_at is not None:
        key, start = scan_key(data, key_at)
        end = skip_value(data, start)
        yield key, data[start:end].rstrip(_SPACES)
        key_at = next_member(data, end)


def nesting_depth(data: bytes) -> int:
    """Return how deep objects and arrays are nested. A text that ends early is measured as far as it goes."""
    brackets = _STRING_OR_REST.sub(b"", data).translate(_STEPS, _NOT_BRACKETS)
    return max(accumulate(memoryview(brackets).cast("b"), initial=0))
