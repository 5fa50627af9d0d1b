"""How the tests of sources read one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from midstream.dimensions import Dimension, DimensionType
from midstream.settings import Settings
from midstream.sources.errors import SourceCode, SourceError
from midstream.sources.opening import open_sources
from midstream.sources.reading import Reading, Refused, Source


def configure(folder: Path, text: str) -> dict[DimensionType, Source]:
    """Open the sources of a file with this text."""
    file = folder / "sources.toml"
    file.write_text(text, "utf-8")
    return open_sources(Settings(home=folder / "home", dimension_sources=str(file)))


def taken(reading: Reading) -> tuple[list[Dimension], list[Refused]]:
    """Read to the end; return the rows, and what was refused."""
    rows: list[Dimension] = []
    refused: list[Refused] = []
    for block in reading:
        for item in block:
            if isinstance(item, Refused):
                refused.append(item)
            else:
                rows.append(item)
    return rows, refused


def read(source: Source, ids: Sequence[str] | None = None, since: str | None = None) -> dict[str, Any]:
    """Return the attributes of what a source gives, by id; nothing may be refused."""
    rows, refused = taken(source.read(ids, since))
    assert refused == []
    return {row.id: json.loads(row.attributes) for row in rows}


def failure(source: Source, ids: Sequence[str] | None = None) -> tuple[SourceCode, str]:
    """Return the code and message of a source that cannot be read to its end."""
    with pytest.raises(SourceError) as raised:
        taken(source.read(ids))
    return raised.value.code, str(raised.value)
