"""Dimensions: the objects that events speak of (users, devices, content and so on), one row an object.

A row travels on the compacted topic ``dimensions`` under the key ``<type>/<id>``. Of two rows of one object
the one with the higher version counts, in whatever order they arrive; so a row may be written any number of
times.
"""

from __future__ import annotations

import json
import time
from enum import StrEnum
from typing import Any

import msgspec

from midstream.records import decode_record, encode_record
from midstream.topics import DIMENSIONS

MAX_ID_BYTES = 1024
MAX_DEPTH = 64
MAX_VERSION = 2**63 - 1

_MAX_IDS_PER_MS = 10_000  # some ten times what can be read in a millisecond
_LINE_FRAME_BYTES = 2 * MAX_ID_BYTES * 6 + 256  # id with every character escaped, version, names and blanks


class DimensionType(StrEnum):
    """What kind of object a row describes."""

    USER = "user"
    ORGANISATION = "organisation"
    LOCATION = "location"
    BATCH = "batch"
    USER_COURSE = "user_course"
    CONTENT = "content"
    DEVICE = "device"


class InternalType(StrEnum):
    """What rows on the topic are besides: nobody pushes, reads or looks up objects of these types."""

    ERASED = "erased"
    """The keyed hash of an erased object's id: see :mod:`midstream.erased`."""


class DimensionError(ValueError):
    """A row cannot be taken.

    Attributes:
        code: one of ``INVALID_JSON``, ``INVALID_UTF8``, ``INVALID_ROW``, ``INVALID_ID``, ``INVALID_VERSION``,
            ``NOT_AN_OBJECT``, ``TOO_DEEP``, ``TOO_LARGE``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Dimension(msgspec.Struct, frozen=True):
    """One object's attributes at one version.

    ``attributes`` is a JSON object as compact text, ``updated_at_ms`` epoch milliseconds.
    """

    type: DimensionType | InternalType
    id: str
    attributes: str
    version: int
    deleted: bool
    updated_at_ms: int

    @property
    def key(self) -> bytes:
        """Key of the record on the topic."""
        return f"{self.type}/{self.id}".encode()


class VersionClock:
    """Hands out versions for rows that come without one: epoch milliseconds, and more only where one id needs it.

    Versions are compared within one object only. Were they to differ among all, a bulk load would run ahead of the
    time, and who puts one of its rows soon after would lose. Not for several threads at once.
    """

    def __init__(self) -> None:
        self._now_ms = 0
        self._given: dict[str, int] = {}  # id -> its last version, as long as that is not in the past

    def next(self, id_: str) -> int:
        """Return a version higher than all before of this id."""
        self._advance()
        version = max(self._given.get(id_, 0) + 1, self._now_ms)
        self._given[id_] = version
        return version

    def _advance(self) -> None:
        time_ms = now_ms()
        if time_ms > self._now_ms:  # a clock that was set back stands still here
            self._now_ms = time_ms
            self._given = {id_: version for id_, version in self._given.items() if version >= time_ms}
        elif len(self._given) >= _MAX_IDS_PER_MS:  # it has stood for long
            self._now_ms = max(self._given.values()) + 1
            self._given.clear()


class _Row(msgspec.Struct):
    id: str
    attributes: msgspec.Raw
    version: int | msgspec.UnsetType = msgspec.UNSET


_INTERNAL = frozenset(InternalType)
_row_decoder = msgspec.json.Decoder(_Row)
_object_decoder = msgspec.json.Decoder(dict[str, Any])
_encoder = msgspec.json.Encoder()


def now_ms() -> int:
    """Return the time as epoch milliseconds."""
    return time.time_ns() // 1_000_000


def max_line_bytes(max_attributes_bytes: int) -> int:
    """Return the longest line of JSON that can hold a row whose attributes take ``max_attributes_bytes``."""
    return max_attributes_bytes + _LINE_FRAME_BYTES


def parse_row(type_: DimensionType, line: bytes, clock: VersionClock, max_attributes_bytes: int) -> Dimension:
    """Read one line ``{"id", "attributes", "version"?}``.

    Raises:
        DimensionError: it is none, or a part of it cannot be taken.
    """
    try:
        row = _row_decoder.decode(line)
    except UnicodeDecodeError:
        raise DimensionError("INVALID_UTF8", "the line is not UTF-8") from None
    except msgspec.ValidationError as error:
        raise DimensionError("INVALID_ROW", f'expected {{"id", "attributes", "version"?}}: {error}') from None
    except RecursionError:
        raise DimensionError("TOO_DEEP", f"attributes are nested deeper than {MAX_DEPTH}") from None
    except msgspec.DecodeError as error:
        raise DimensionError("INVALID_JSON", f"the line is not JSON: {error}") from None
    version = clock.next(row.id) if row.version is msgspec.UNSET else row.version
    return make_dimension(type_, row.id, bytes(row.attributes), version, max_attributes_bytes)


def make_dimension(
    type_: DimensionType, id_: str, attributes: bytes, version: int, max_attributes_bytes: int
) -> Dimension:
    """Make a row from the JSON text of its attributes.

    Raises:
        DimensionError: a part of it cannot be taken.
    """
    check_id(id_)
    if not 0 <= version <= MAX_VERSION:
        raise DimensionError("INVALID_VERSION", "version is an integer from 0 to 2^63-1")
    text = compact_object(attributes, max_attributes_bytes)
    return Dimension(type_, id_, text, version, False, now_ms())


def check_id(id_: str) -> None:
    """Check an object's id.

    Raises:
        DimensionError: it is empty, too long or no text.
    """
    try:
        size = len(id_) if id_.isascii() else len(id_.encode())
    except UnicodeEncodeError:
        raise DimensionError("INVALID_ID", "id holds a lone surrogate") from None
    if not 0 < size <= MAX_ID_BYTES or "\0" in id_:
        raise DimensionError("INVALID_ID", f"id is a text of 1 to {MAX_ID_BYTES} bytes without NUL")


def compact_object(text: bytes, max_bytes: int) -> str:
    """Check that ``text`` is a JSON object which every reader reads alike; return it without needless blanks.

    Numbers keep the form they were written in.

    Raises:
        DimensionError: not an object, not UTF-8, too large, too deep, or a key stands twice in one object.
    """
    if len(text) > max_bytes:
        raise DimensionError("TOO_LARGE", f"attributes take {len(text)} bytes, the limit is {max_bytes}")
    try:
        decoded = text.decode()
        value = _object_decoder.decode(text)
    except UnicodeDecodeError:
        raise DimensionError("INVALID_UTF8", "attributes are not UTF-8") from None
    except RecursionError:
        raise DimensionError("TOO_DEEP", f"attributes are nested deeper than {MAX_DEPTH}") from None
    except msgspec.ValidationError as error:
        if text.lstrip()[:1] == b"{":
            raise DimensionError("INVALID_JSON", f"attributes cannot be read: {error}") from None
        raise DimensionError("NOT_AN_OBJECT", "attributes are a JSON object") from None
    except msgspec.DecodeError as error:
        raise DimensionError("INVALID_JSON", f"attributes are not JSON: {error}") from None
    if decoded.count("{") + decoded.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise DimensionError("TOO_DEEP", f"attributes are nested deeper than {MAX_DEPTH}")
    compact = msgspec.json.format(text, indent=-1)
    # Written again from the parsed value it is nearly always the same text; then no key stood twice.
    if _encoder.encode(value) != compact:
        refuse_repeated_keys(decoded)
    return compact.decode()


def encode_dimension(dimension: Dimension) -> bytes:
    """Return the row as a value of the topic ``dimensions``."""
    return encode_record(DIMENSIONS.name, msgspec.structs.asdict(dimension))


def decode_dimension(value: bytes) -> Dimension:
    """Read a value of the topic ``dimensions``.

    Raises:
        midstream.records.RecordError: it is none.
        ValueError: its type is none that we know.
    """
    record = decode_record(DIMENSIONS.name, value)
    name = record["type"]
    type_ = InternalType(name) if name in _INTERNAL else DimensionType(name)
    return Dimension(**{**record, "type": type_})


def refuse_repeated_keys(text: str) -> None:
    """Refuse a JSON text in which an object names a key twice.

    Raises:
        DimensionError: one does.
    """

    def check(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DimensionError("INVALID_JSON", f"attributes name the key {key[:100]!r} twice in one object")
            seen.add(key)

    # Integers of any length would be slow to convert, and their value does not matter here.
    json.loads(text, object_pairs_hook=check, parse_int=str)


def _depth(value: object) -> int:
    deepest = 0
    stack = [(value, 1)]
    while stack:
        here, depth = stack.pop()
        if isinstance(here, dict):
            children = list(here.values())
        elif isinstance(here, list):
            children = here
        else:
            continue
        deepest = max(deepest, depth)
        stack.extend((child, depth + 1) for child in children)
    return deepest
