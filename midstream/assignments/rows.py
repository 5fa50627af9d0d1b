"""Writes of records as rows of ``assignment_rows``. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from midstream.assignments.fields import FIELDS, Value
from midstream.assignments.indicators import StepFacts
from midstream.assignments.record import Version

TABLE = "assignment_rows"

VALUE_COLUMNS = tuple("total_time_us" if name == "total_time" else name for name in FIELDS)
"""Where the values of :data:`FIELDS` stand, in their order."""

_US = pa.timestamp("us", tz="UTC")
_TEXTS = ("telemetry", "metrics")
_encode = msgspec.json.Encoder().encode


class RecordKey(NamedTuple):
    """What a record is of."""

    academy_id: int
    asset_slug: str
    user_id: int


@dataclass(frozen=True, slots=True)
class Write:
    """What one request wants of a record. Absent from ``given``: the field stays as it is."""

    key: RecordKey
    author: int
    """The user whose token it came with."""
    given: Mapping[str, Value]
    computed: Mapping[str, Value] = field(default_factory=dict)
    """Derived from the telemetry; gives way to what was given."""
    steps: Sequence[StepFacts] = ()
    """Of the telemetry that is given."""

    @property
    def size_bytes(self) -> int:
        """About how much of an insert it is."""
        values = (*self.given.values(), *self.computed.values())
        return 512 + sum(len(value) for value in values if isinstance(value, bytes)) + 64 * len(self.steps)


@dataclass(frozen=True, slots=True)
class PlacedWrite:
    """A write with its place among those of its record."""

    write: Write
    id: int
    version: int
    written_at: datetime
    created_at: datetime

    def as_version(self) -> Version:
        """Return what the record is made of."""
        given, computed = self.write.given, self.write.computed
        return Version(self.version, self.written_at, frozenset(given), frozenset(computed), {**computed, **given})


def rows_of(placed: Sequence[PlacedWrite], writer: str, batch: int) -> pa.RecordBatch:
    """Return the rows of these writes, one each."""

    def values(name: str) -> list[Value]:
        return [one.write.given.get(name, one.write.computed.get(name)) for one in placed]

    keys = [one.write.key for one in placed]
    columns: dict[str, Any] = {
        "academy_id": pa.array([key.academy_id for key in keys], pa.int64()),
        "asset_slug": pa.array([key.asset_slug for key in keys], pa.string()),
        "user_id": pa.array([key.user_id for key in keys], pa.int64()),
        "version": pa.array([one.version for one in placed], pa.int64()),
        "id": pa.array([one.id for one in placed], pa.int64()),
        "author": pa.array([one.write.author for one in placed], pa.int64()),
        "written_at": pa.array([one.written_at for one in placed], _US),
        "created_at": pa.array([one.created_at for one in placed], _US),
        "given": pa.array([bits_of(one.write.given) for one in placed], pa.uint8()),
        "computed": pa.array([bits_of(one.write.computed) for one in placed], pa.uint8()),
    }
    for name, column in zip(FIELDS, VALUE_COLUMNS, strict=True):
        kind = pa.binary() if name in _TEXTS else pa.int64() if name == "total_time" else pa.float64()
        columns[column] = pa.array(values(name), kind)
    columns["steps"] = pa.array([_encode(one.write.steps) if one.write.steps else b"" for one in placed], pa.binary())
    columns["writer"] = pa.array([writer] * len(placed), pa.string())
    columns["batch"] = pa.array([batch] * len(placed), pa.uint64())
    return pa.RecordBatch.from_pydict(columns)


def bits_of(names: Collection[str]) -> int:
    """Return names of fields as the table has them: bit n is field n of :data:`FIELDS`."""
    return sum(1 << number for number, name in enumerate(FIELDS) if name in names)


def names_of(bits: int) -> frozenset[str]:
    """Return the names that :func:`bits_of` was given."""
    return frozenset(name for number, name in enumerate(FIELDS) if bits >> number & 1)
