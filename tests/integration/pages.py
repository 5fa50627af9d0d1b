"""Commands of a page of the documentation, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.support.pipeline import Pipeline


def blocks_of(page: Path, language: str) -> list[str]:
    """Return the contents of a page's code blocks of a language; "": of those that name none."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [text for named, text in blocks if named == language]


def run_page(
    page: Path, pipeline: Pipeline, folder: Path, changes: Iterable[tuple[str, str]]
) -> subprocess.CompletedProcess[str]:
    """Run all ``sh`` blocks of a page as one script in a folder; each of ``changes`` is another name for something
    that the page names, such as a port. Fails when a command does."""
    script = "set -euo pipefail\n" + "\necho\n".join(blocks_of(page, "sh"))
    for here, there in changes:
        assert here in script
        script = script.replace(here, there)
    script = script.replace("curl -sS", "curl -sS --fail-with-body --max-time 20")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, **pipeline.env},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done
