"""What an audit found: numbers, what is wrong, what could not be checked. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

HOUR_MS = 3_600_000


class Kind(StrEnum):
    """What can be wrong."""

    MISSING = "missing"
    """An event of a batch that is through is nowhere."""
    SURPLUS = "surplus"
    """An arrival that its batch does not have, or one of a batch that nobody received."""
    DOUBLED = "doubled"
    """A mid, or an arrival, is stored more than once."""
    SEQUENCE_GAP = "sequence_gap"
    """A collector numbered a batch that is not in ``batches``."""
    OFFSET_GAP = "offset_gap"
    """A record of ``telemetry.raw`` holds a batch that is not in ``batches``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; fields that say nothing of it are "" or -1."""

    kind: Kind
    batch_id: str = ""
    event_index: int = -1
    mid: str = ""
    eid: str = ""
    topic: str = ""
    partition: int = -1
    offset: int = -1
    collector: str = ""
    sequence: int = -1
    count: int = 1
    """How many it is: events, rows too many, numbers in a row."""
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that say something."""
        return {
            name: str(value) if isinstance(value, Kind) else value
            for name, value in asdict(self).items()
            if value not in ("", -1)
        }

    def line(self) -> str:
        """Return it in words, for people."""
        fields = self.as_dict()
        kind = fields.pop("kind").replace("_", " ")
        note = fields.pop("note", "")
        if fields["count"] == 1:
            del fields["count"]
        named = " ".join(f"{name} {value}" for name, value in fields.items())
        return f"{kind}: {named}" + (f" ({note})" if note else "")


@dataclass(slots=True)
class Counts:
    """Numbers of a time; arrivals but for ``batches`` and ``gaps``."""

    batches: int = 0
    received: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    in_flight: int = 0
    missing: int = 0
    surplus: int = 0
    doubled: int = 0
    """Stored rows too many for their mids."""
    gaps: int = 0
    """Batches that collectors numbered, or Kafka holds, and that are not in ``batches``."""

    def add(self, other: Counts) -> None:
        """Add another time's numbers."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Report:
    """The outcome of an audit from ``from_ms`` on and before ``to_ms`` (receipt of batches, epoch milliseconds)."""

    from_ms: int
    to_ms: int
    complete_until_ms: int
    limit: int
    """Most findings that are kept."""
    counts: Counts = field(default_factory=Counts)
    findings: list[Finding] = field(default_factory=list)
    dropped: int = 0
    """Findings beyond the limit."""
    unchecked: list[str] = field(default_factory=list)
    """What had to be checked and could not be: the counts are not proven."""
    notes: list[str] = field(default_factory=list)

    def find(self, finding: Finding) -> None:
        """Keep a finding, as far as the limit allows."""
        if len(self.findings) < self.limit:
            self.findings.append(finding)
        else:
            self.dropped += 1

    @property
    def proven(self) -> bool:
        """Whether all was checked, and everything that was received is in one place."""
        counts = self.counts
        wrong = counts.missing + counts.surplus + counts.doubled + counts.gaps + len(self.findings) + self.dropped
        adds_up = counts.received == counts.stored + counts.duplicate + counts.rejected
        return not wrong and not self.unchecked and adds_up

    @property
    def verdict(self) -> str:
        """What it comes to, and up to which moment."""
        until = format_time(self.to_ms)
        if self.proven:
            return f"Proven up to {until}: everything that was received before is counted once."
        return f"NOT PROVEN up to {until}."

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "proven": self.proven,
            "from": format_time(self.from_ms),
            "to": format_time(self.to_ms),
            "complete_until": format_time(self.complete_until_ms),
            **asdict(self.counts),
            "findings": [finding.as_dict() for finding in self.findings],
            "findings_dropped": self.dropped,
            "unchecked": self.unchecked,
            "notes": self.notes,
        }


def format_time(ms: int) -> str:
    """Return epoch milliseconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> int:
    """Return an ISO 8601 time or date as epoch milliseconds; UTC where it does not say.

    Raises:
        ValueError: it is neither.
    """
    parsed = datetime.fromisoformat(text.strip())
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return round(parsed.timestamp() * 1000)


def slices(from_ms: int, to_ms: int, width_ms: int) -> Iterator[tuple[int, int]]:
    """Yield consecutive times that make up a time, cut at whole multiples of the width."""
    at = from_ms
    while at < to_ms:
        until = min((at // width_ms + 1) * width_ms, to_ms)
        yield at, until
        at = until


def spans(hours: Mapping[int, int], from_ms: int, to_ms: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yield the times within a time that hold anything, ascending: as many whole hours as hold about so many rows, and
    at least one.

    Args:
        hours: rows by hour since the epoch, ascending, of hours that hold any.
        from_ms: begin of the whole time, epoch milliseconds.
        to_ms: its end.
        rows: how many rows come together at most.
    """
    first, last, held = -1, -1, 0
    for hour, count in hours.items():
        if first >= 0 and held + count > rows:
            yield max(first * HOUR_MS, from_ms), min((last + 1) * HOUR_MS, to_ms)
            first, held = -1, 0
        if first < 0:
            first = hour
        last, held = hour, held + count
    if first >= 0:
        yield max(first * HOUR_MS, from_ms), min((last + 1) * HOUR_MS, to_ms)


def runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield first number and length of each run of ascending numbers without a gap."""
    first = last = -2
    for number in numbers:
        if number != last + 1:
            if first >= 0:
                yield first, last - first + 1
            first = number
        last = number
    if first >= 0:
        yield first, last - first + 1
