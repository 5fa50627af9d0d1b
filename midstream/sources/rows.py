"""Makes dimension rows of what a source gives: JSON objects, or the columns of a query."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from midstream.dimensions import (
    MAX_VERSION,
    DimensionError,
    DimensionType,
    VersionClock,
    check_id,
    make_dimension,
    refuse_repeated_keys,
)
from midstream.sources.reading import Item, Refused

TimeUnit = Literal["timestamp", "epoch_s", "epoch_ms"]
"""How a time of change is written: a timestamp of the database or a text of ISO 8601, or a number."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_INTEGER = re.compile(r"\d{1,19}")

_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=str)


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a row mean something; "" where a row has no such field."""

    id: str = "id"
    version: str = ""
    updated_at: str = ""
    updated_at_unit: TimeUnit = "timestamp"
    attributes: str = ""
    """The field that holds the attributes as an object; "": all others are attributes."""
    deleted: str = ""
    """A row in which it is true, 1 or a text such as a time of deletion is of an object that is no more."""
    json: tuple[str, ...] = ()
    """Columns of text that hold JSON."""


class RowMaker:
    """Makes the rows of one read of a source.

    Attributes:
        highest: the highest version that the source gave so far, None before the first.
    """

    def __init__(self, type_: DimensionType, fields: Fields, max_attributes_bytes: int) -> None:
        self._type = type_
        self._fields = fields
        self._named = {fields.id, fields.version, fields.updated_at, fields.deleted} - {""}
        self._max_bytes = max_attributes_bytes
        self._clock = VersionClock()
        self.highest: int | None = None

    def from_json(self, text: bytes, place: str) -> Item:
        """Make a row of a JSON object."""
        try:
            values = _read_object(text)
        except DimensionError as error:
            return Refused(place, error.code, str(error), None)

        def value(name: str) -> object:
            raw = values.get(name)
            return None if raw is None else msgspec.json.decode(raw)

        def attributes() -> bytes:
            if self._fields.attributes:
                found = values.get(self._fields.attributes)
                if found is None:
                    raise DimensionError("NOT_AN_OBJECT", f"there is no `{self._fields.attributes}`")
                return bytes(found)
            return _encoder.encode({name: raw for name, raw in values.items() if name not in self._named})

        return self._make(value, attributes, place)

    def from_columns(self, values: Mapping[str, object], place: str) -> Item:
        """Make a row of named values. Numbers stay numbers, JSON stays JSON, times become ISO 8601, bytes Base64;
        what has no such form becomes its text, and a number that is none (NaN) null."""

        def attributes() -> bytes:
            plain = {name: self._plain(name, value) for name, value in values.items() if name not in self._named}
            try:
                return _encoder.encode(plain)
            except (UnicodeEncodeError, OverflowError, TypeError, ValueError, RecursionError) as error:
                raise DimensionError("INVALID_ROW", f"a column has no form in JSON: {error}") from None

        return self._make(values.get, attributes, place)

    def _make(self, value: Callable[[str], object], attributes: Callable[[], bytes], place: str) -> Item:
        fields = self._fields
        id_: str | None = ""
        try:
            try:
                id_ = _id(value(fields.id), fields.id)
                check_id(id_)
            except DimensionError:
                id_ = ""  # no object that is known has such an id
                raise
            except (msgspec.DecodeError, RecursionError) as error:
                id_ = None
                raise DimensionError("INVALID_JSON", f"`{fields.id}` cannot be read: {error}") from None
            try:
                version = self._version(id_, value)
                deleted = bool(fields.deleted) and _is_true(value(fields.deleted))
            except (msgspec.DecodeError, RecursionError) as error:
                raise DimensionError("INVALID_JSON", f"the row cannot be read: {error}") from None
            row = make_dimension(self._type, id_, b"{}" if deleted else attributes(), version, self._max_bytes)
        except DimensionError as error:
            return Refused(place, error.code, str(error), id_)
        if (fields.version or fields.updated_at) and (self.highest is None or version > self.highest):
            self.highest = version
        return msgspec.structs.replace(row, deleted=True) if deleted else row

    def _plain(self, name: str, value: Any) -> Any:
        if isinstance(value, Decimal) and not value.is_finite():
            return None
        return _as_json(value, name) if name in self._fields.json and isinstance(value, str) else value

    def _version(self, id_: str, value: Callable[[str], object]) -> int:
        fields = self._fields
        if fields.version:
            return _version(value(fields.version), fields.version)
        if fields.updated_at:
            return _milliseconds(value(fields.updated_at), fields.updated_at, fields.updated_at_unit)
        return self._clock.next(id_)


def _read_object(text: bytes) -> dict[str, msgspec.Raw]:
    """Read an object's fields, each as it is written.

    Raises:
        DimensionError: it is no object, or a key stands twice in it.
    """
    try:
        values = _fields_decoder.decode(text)
        again = msgspec.json.format(_encoder.encode(values), indent=-1)
        if again != msgspec.json.format(text, indent=-1):
            refuse_repeated_keys(text.decode())
    except UnicodeDecodeError:
        raise DimensionError("INVALID_UTF8", "the row is not UTF-8") from None
    except RecursionError:
        raise DimensionError("TOO_DEEP", "the row is nested too deep") from None
    except msgspec.ValidationError:
        raise DimensionError("INVALID_ROW", "the row is no JSON object") from None
    except msgspec.DecodeError as error:
        raise DimensionError("INVALID_JSON", f"the row is not JSON: {error}") from None
    return values


def _id(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return str(int(value))
    if value is None:
        raise DimensionError("INVALID_ROW", f"there is no `{name}`")
    raise DimensionError("INVALID_ID", f"`{name}` is neither a text nor an integer")


def _version(value: object, name: str) -> int:
    number = _integer(value)
    if number is None or not 0 <= number <= MAX_VERSION:
        raise DimensionError("INVALID_VERSION", f"`{name}` is an integer from 0 to 2^63-1")
    return number


def _integer(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    return None


def _milliseconds(value: object, name: str, unit: TimeUnit) -> int:
    """Return a time of change as epoch milliseconds, rounded down. A time without a zone is UTC."""
    found: int | None = None
    if unit == "timestamp":
        found = _timestamp_ms(value)
    elif unit == "epoch_ms":
        found = _integer(value)
    elif isinstance(value, Decimal | float | int) and not isinstance(value, bool):
        try:
            found = int(Decimal(str(value)) * 1000)
        except (ArithmeticError, ValueError):
            found = None
    if found is None or not 0 <= found <= MAX_VERSION:
        form = "a timestamp" if unit == "timestamp" else f"a number of {unit}"
        raise DimensionError("INVALID_VERSION", f"`{name}` is no time as {form} since 1970")
    return found


def _timestamp_ms(value: object) -> int | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        return None
    return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH) // _MS


def _is_true(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "false", "f", "no", "n")
    return bool(value)


def _as_json(text: str, name: str) -> msgspec.Raw:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)  # what it holds is checked with the other attributes
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise DimensionError("INVALID_JSON", f"`{name}` holds no JSON") from None
    return msgspec.Raw(text)
