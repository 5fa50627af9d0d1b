"""What a builder is told: on its standard input, as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec

from midstream.exhaust.dataset import Dataset, digest, read_declaration, to_declaration
from midstream.exhaust.manifest import Note
from midstream.exhaust.variant import DayKey, Variant, variant_from


@dataclass(frozen=True, slots=True)
class Job:
    """A day to build.

    Attributes:
        dataset: whose events.
        resource: in its canonical form.
        variant: which of them, and in which form.
        day: a closed UTC day.
        revision: number of its newest revision; 0: none.
        notes: why it is not the first that was built, oldest first.
    """

    dataset: Dataset
    resource: str
    variant: Variant
    day: date
    revision: int
    notes: tuple[Note, ...]

    @property
    def key(self) -> DayKey:
        """Which bytes come out."""
        return DayKey(self.dataset.name, digest(self.dataset), self.resource, self.variant, self.day, self.revision)

    def encode(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.encode(
            {
                "dataset": to_declaration(self.dataset),
                "resource": self.resource,
                "variant": self.variant.as_dict(),
                "day": str(self.day),
                "revision": self.revision,
                "notes": [[note.at, note.reason] for note in self.notes],
            }
        )


def read_job(text: bytes) -> Job:
    """Return what :meth:`Job.encode` made."""
    said: dict[str, Any] = msgspec.json.decode(text)
    return Job(
        dataset=read_declaration(said["dataset"]),
        resource=said["resource"],
        variant=variant_from(said["variant"]),
        day=date.fromisoformat(said["day"]),
        revision=said["revision"],
        notes=tuple(Note(at, reason) for at, reason in said["notes"]),
    )
