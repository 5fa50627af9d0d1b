"""Programs that check what is in deploy/: `make tools` builds them where Go is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def tool(name: str) -> str:
    """Return the path of a program, in the version that the Makefile names; where it is not built, skip the test."""
    variable = name.upper().replace("-", "_") + "_VERSION"
    [version] = re.findall(rf"^{variable} := (\S+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    path = ROOT / ".tools" / "bin" / f"{name}-{version}"
    if not path.exists():
        pytest.skip(f"{name} {version} is not built: `make tools` does, where Go and the network are there")
    return str(path)
