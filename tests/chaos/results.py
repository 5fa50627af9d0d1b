"""Results: a file each, by which a run is resumed, and a table."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tests.support.pipeline import ROOT

_CODE = ("midstream", "ingest", "processors", "serve", "schemas", "deploy", "tests/chaos", "tests/support")
_FILES = ("bench/mix.py", "requirements.lock")
_SUFFIXES = {".py", ".sql", ".avsc", ".json", ".xml", ".properties", ".lock"}
_EXCLUDED = {"__pycache__", "libs"}

_COLUMNS = (
    ("case", 36),
    ("seed", 4),
    ("sent", 8),
    ("acknowledged", 12),
    ("stored", 8),
    ("distinct", 8),
    ("duplicate", 9),
    ("rejected", 8),
    ("lost", 5),
    ("double", 6),
    ("unaccounted", 11),
    ("recovery_s", 10),
    ("verdict", 7),
)


@cache
def code_revision() -> str:
    """Return a hash of the code that a result depends on."""
    digest = hashlib.sha256()
    paths = [ROOT / name for name in _FILES]
    for folder in _CODE:
        paths += (path for path in (ROOT / folder).rglob("*") if path.suffix in _SUFFIXES)
    for path in sorted(paths):
        if not _EXCLUDED & set(path.parts) and path.is_file():
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@dataclass
class Result:
    """What came out of one run of a case."""

    case: str
    seed: int
    events: int
    verdict: Literal["passed", "failed", "skipped"] = "failed"
    recovery_s: float | None = None
    """From the end of the fault until everything was through."""
    total_s: float = 0.0
    counts: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What is wrong, or why it was skipped."""
    notes: dict[str, Any] = field(default_factory=dict)
    revision: str = field(default_factory=code_revision)


class Results:
    """A folder with the newest result of each case and seed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def logs_of(self, case: str, seed: int) -> Path:
        """Return where the logs of a failed run go."""
        return self._folder / f"{case}-{seed}.logs"

    def write(self, result: Result) -> None:
        """Keep a result, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(result.case, result.seed)
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps(asdict(result), indent=2, default=str) + "\n")
        new.replace(path)

    def passed(self, case: str, seed: int, events: int) -> Result | None:
        """Return the result of a run that need not be done again: passed, with this code and as many events."""
        try:
            result = Result(**json.loads(self._path(case, seed).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        good = result.verdict == "passed" and result.revision == code_revision() and result.events >= events
        return result if good else None

    def _path(self, case: str, seed: int) -> Path:
        return self._folder / f"{case}-{seed}.json"


def header() -> str:
    """Return the table's first line."""
    return "  ".join(_aligned(name, width, name) for name, width in _COLUMNS)


def row(result: Result, *, again: bool = False) -> str:
    """Return a result's line, and a line for each thing that is wrong."""
    values = {**asdict(result), **result.counts}
    if again:
        values["verdict"] = "passed before"
    cells = (_aligned(name, width, values.get(name)) for name, width in _COLUMNS)
    return "\n".join(["  ".join(cells).rstrip(), *(f"    {fault}" for fault in result.faults)])


def _aligned(name: str, width: int, value: Any) -> str:
    text = "-" if value is None else str(value)
    return text.ljust(width) if name in ("case", "verdict") else text.rjust(width)
