"""Reading a batch body: find the bounds of each event without judging any of them.

The collector (which only counts) and ``validate`` (which splits) read a body by the same function, so that an
event's index means the same everywhere. One bad event never costs its neighbours: where msgspec cannot read the body, a
scanner that knows only strings and brackets finds where each element of ``events`` begins and ends.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec

from midstream.events.times import parse_sent_at
from midstream.jsonscan import (
    ScanError,
    first_member,
    nesting_depth,
    next_member,
    scan_elements,
    scan_key,
    skip_space,
    skip_value,
)

_BOM = b"\xef\xbb\xbf"
_MAX_ID_CHARS = 1_024
"""A longer ``did`` or ``msgid`` is no id. They travel in a record header, beside a body that may fill the message."""

_MAX_DEPTH = 200
"""What is nested deeper outside of ``events`` is not read but passed over. Without a limit of our own, the depth of the
caller's stack would decide, and ``validate`` might not read what the collector read."""


_MAX_COMMAS_UNREAD = 500_000
"""A body with fewer is read without counting first: what comes of so many elements takes some 30 MB at most."""


class EnvelopeError(ValueError):
    """The body is not a batch: no JSON, no object, or without an array ``events``."""


class Batch(msgspec.Struct, frozen=True, gc=False):
    """What a batch body holds, and says of itself."""

    events: list[msgspec.Raw]
    """The exact text of each element of ``events``; ``bytes(element)`` gives it."""
    did: str
    """``params.did``; "" when there is none, or none that is a string."""
    msgid: str
    """``params.msgid``, likewise."""
    sent_at_ms: int | None
    """By ``ets``, else ``ts``; None when neither is a time."""


class _Envelope(msgspec.Struct):
    """A batch body. Everything but ``events`` is optional and of whatever type the client sent."""

    events: list[msgspec.Raw]
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ets: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Envelope)


def holds_more_than(body: bytes, elements: int) -> bool:
    """Whether the ``events`` of an inflated body has more elements than this, told without making any of them.

    To be asked before a body is read: a few kilobytes of gzip can hold millions of elements, which take hundreds of
    megabytes once read. True is always right. False is also the answer to a body that is none, and to one of so few
    commas that it may be read and counted.
    """
    if body.count(b",") < max(elements, _MAX_COMMAS_UNREAD):  # n elements have n - 1 commas between them
        return False
    start = skip_space(body, len(_BOM) if body.startswith(_BOM) else 0)
    if body[start : start + 1] != b"{":
        return False
    try:
        key_at = first_member(body, start)
        while key_at is not None:
            key, value_at = scan_key(body, key_at)
            if body[value_at : value_at + 1] == b"[" and _is_events(key):
                after = _skip_elements(body, value_at, elements)
                if after is None:
                    return True
                value_at = after
            key_at = next_member(body, skip_value(body, value_at))
    except (ScanError, EnvelopeError):  # and no reader comes further than this
        pass
    return False


def _skip_elements(body: bytes, at: int, elements: int) -> int | None:
    """Return the offset after the array that opens at ``at``; None when it has more than so many elements."""
    first = skip_space(body, at + 1)
    if body[first : first + 1] == b"]":
        return first + 1
    for _ in range(elements):
        at = skip_value(body, at + 1)
        if body[at : at + 1] != b",":
            return at + 1
    return None


def read_envelope(body: bytes) -> Batch:
    """Return the events of an inflated body and what it says of itself.

    Of a key that stands twice the last counts. A byte order mark before the body is tolerated. Elements of ``events``
    may be anything that has bounds, even what is no JSON; all else must be JSON, in UTF-8 (what is nested deeper than
    200 levels there is not looked at).

    Raises:
        EnvelopeError: see there.
    """
    body = body.removeprefix(_BOM)
    return _read_quickly(body) or _scan_envelope(body)


def read_quickly(body: bytes) -> Batch | None:
    """Return what :func:`read_envelope` does, or None where that would take longer than a parser does.

    Raises:
        EnvelopeError: see there.
    """
    return _read_quickly(body.removeprefix(_BOM))


def _read_quickly(body: bytes) -> Batch | None:
    # msgspec passes over bytes that are not UTF-8, wherever they stand.
    if not body.isascii() and not _is_utf8(body):
        return None
    try:
        envelope = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return _make_batch(envelope.events, _value(envelope.params), _value(envelope.ets), _value(envelope.ts))


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _value(raw: msgspec.Raw | msgspec.UnsetType) -> Any:
    if raw is msgspec.UNSET:
        return None
    text = bytes(raw)
    return None if len(text) > _MAX_DEPTH and nesting_depth(text) > _MAX_DEPTH else _parse(text)


def _make_batch(events: list[msgspec.Raw], params: Any, ets: Any, ts: Any) -> Batch:
    facts = params if isinstance(params, dict) else {}
    return Batch(events, _id(facts.get("did")), _id(facts.get("msgid")), parse_sent_at(ets, ts))


def _id(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_ID_CHARS:
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, escaped
        return ""
    return value


def _integer(digits: str) -> int | float:
    # Python refuses to parse integers of thousands of digits (CVE-2020-10735); no client means one exactly.
    return int(digits) if len(digits) <= 20 else float(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_strict = json.JSONDecoder(parse_int=_integer, parse_constant=_refuse_constant)  # loads() would make one each time


def _parse(text: bytes) -> Any:
    """Parse strictly.

    Raises:
        EnvelopeError: ``text`` is not JSON.
    """
    try:
        return _strict.decode(text.decode())
    except UnicodeDecodeError as error:
        raise EnvelopeError("the body is not UTF-8 outside of its events") from error
    except ValueError as error:
        raise EnvelopeError(f"the body is not JSON: {error}") from error


def _scan_envelope(body: bytes) -> Batch:
    """Read a body that msgspec does not: at worst some 0.6 us of CPU a byte, whatever stands in it."""
    start = skip_space(body, 0)
    if body[start : start + 1] != b"{":
        raise EnvelopeError("the body is not a JSON object")
    events: list[bytes] = []
    rest = bytearray()  # the body without the elements of its events
    kept = 0
    try:
        key_at = first_member(body, start)
        while key_at is not None:
            key, value_at = scan_key(body, key_at)
            after = value_at
            if body[value_at : value_at + 1] == b"[" and _is_events(key):
                events, after = scan_elements(body, value_at)
                rest += body[kept:value_at] + b"[]"
                kept = after
            delimiter = skip_value(body, after)
            if delimiter - after > _MAX_DEPTH and nesting_depth(body[after:delimiter]) > _MAX_DEPTH:
                rest += body[kept:after] + b"null"
                kept = delimiter
            key_at = next_member(body, delimiter)
    except ScanError as error:
        raise EnvelopeError(f"the body is not JSON: {error}") from error
    rest += body[kept:]
    document = _parse(bytes(rest))
    if not isinstance(document.get("events"), list):
        raise EnvelopeError("the body has no array `events`")
    return _make_batch(
        [msgspec.Raw(event) for event in events], document.get("params"), document.get("ets"), document.get("ts")
    )


def _is_events(key: bytes) -> bool:
    return key == b'"events"' or (b"\\" in key and _parse(key) == "events")
