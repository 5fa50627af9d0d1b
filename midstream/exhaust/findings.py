"""What the verification of a download found. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MAX_FINDINGS = 1_000
"""More are counted, not kept."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; ``place`` is a file in the archive, and where in it, or the archive itself."""

    place: str
    message: str

    def line(self) -> str:
        """Return it in words, for people."""
        return f"{self.place}: {self.message}"


@dataclass(slots=True)
class Report:
    """What a download holds, and what is wrong with it."""

    dataset: str = ""
    resource: str = ""
    days: int = 0
    """Of which the archive holds a file."""
    events: int = 0
    """Counted, one by one."""
    bytes: int = 0
    """Of the archive."""
    findings: list[Finding] = field(default_factory=list)
    dropped: int = 0
    """Findings beyond :data:`MAX_FINDINGS`."""
    notes: list[str] = field(default_factory=list)
    """Revisions that the manifest tells of."""

    @property
    def proven(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def add(self, place: str, message: str) -> None:
        """Add a finding."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(place, message))
        else:
            self.dropped += 1

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "proven": self.proven,
            "dataset": self.dataset,
            "resource": self.resource,
            "days": self.days,
            "events": self.events,
            "bytes": self.bytes,
            "findings": [{"place": one.place, "message": one.message} for one in self.findings],
            "more_findings": self.dropped,
            "notes": self.notes,
        }
