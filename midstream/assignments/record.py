"""The record of an academy, asset and user: what its writes add up to, in any order and however often.

Per field the latest given value counts, unless it is null. If it was never given, or the latest write that gave it
cleared it, the latest value that was computed after that counts; without one it is null. So what was given is never
overwritten by what was computed, and what was cleared stays so until somebody gives or computes it anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from midstream.assignments.duration import show_duration
from midstream.assignments.fields import FIELDS, Value

_BEFORE_ALL = -1  # versions are not negative

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Version:
    """One stored write."""

    version: int
    """Its place in the order of the record's writes; two writes of a record never have the same."""
    at: datetime
    given: frozenset[str]
    """Names of the fields that the writer gave, null or not."""
    computed: frozenset[str]
    """Names of those that were computed for it; none of them is given too."""
    values: Mapping[str, Value]
    """Of both, by name; one that is missing is null."""


class Written(NamedTuple):
    """The latest value of a field of one kind, and its version."""

    version: int = _BEFORE_ALL
    value: Value = None


@dataclass(frozen=True, slots=True)
class Record:
    """What the writes so far add up to."""

    version: int = _BEFORE_ALL
    """Of the latest write."""
    updated_at: datetime | None = None
    """When that was; None without any."""
    given: Mapping[str, Written] = field(default_factory=dict)
    computed: Mapping[str, Written] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Value]:
        """The value of each of :data:`~midstream.assignments.fields.FIELDS`, in their order."""
        return {name: self._value(name) for name in FIELDS}

    def _value(self, name: str) -> Value:
        given, computed = self.given.get(name, Written()), self.computed.get(name, Written())
        if given.value is None and computed.version > given.version:
            return computed.value
        return given.value


def fold(versions: Iterable[Version], upon: Record | None = None) -> Record:
    """Return the record of these writes, upon what others add up to."""
    latest = upon or Record()
    version, updated_at = latest.version, latest.updated_at
    given, computed = dict(latest.given), dict(latest.computed)
    for write in versions:
        if write.version > version:
            version, updated_at = write.version, write.at
        for names, known in ((write.given, given), (write.computed, computed)):
            for name in names:
                if name not in known or write.version > known[name].version:
                    known[name] = Written(write.version, write.values.get(name))
    return Record(version, updated_at, given, computed)


def show(
    id: int,
    user: int,
    asset_slug: str,
    values: Mapping[str, Value],
    created_at: datetime,
    updated_at: datetime,
) -> bytes:
    """Return the reply's JSON: the members in the contract's order, ``telemetry`` and ``metrics`` as they were sent."""
    return _encoder.encode(
        {
            "id": id,
            "user": user,
            "asset_slug": asset_slug,
            **{name: _shown(name, values.get(name)) for name in FIELDS},
            "created_at": _moment(created_at),
            "updated_at": _moment(updated_at),
        }
    )


def _shown(name: str, value: Value) -> msgspec.Raw | str | float | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return msgspec.Raw(value)
    return show_duration(int(value)) if name == "total_time" else float(value)


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
