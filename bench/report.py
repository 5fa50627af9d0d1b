"""What a bench found, as tables of Markdown and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a report."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = [f"### {self.title}", ""]
        if self.note:
            lines += [self.note, ""]
        lines.append("| " + " | ".join(self.columns) + " |")
        lines.append("|" + "---|" * len(self.columns))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of the bench found."""

    tables: list[Table]
    data: Any
    """Every run, for JSON."""
    troubles: list[str] = field(default_factory=list)
    """Why the part's figures are not to be believed: counts that are not exact, above all."""


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return ``minimum / median / maximum``."""
    parts = (min(values), statistics.median(values), max(values))
    return " / ".join(f"{part:,.{digits}f}" for part in parts)


def times(value: float, base: float) -> str:
    """Return how many times ``base`` a value is, with enough digits to compare."""
    return f"{value / base:.2f}" if base else ""


def write_json(path: Path, content: Any) -> None:
    """Write a report so that it is there whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    new.replace(path)
