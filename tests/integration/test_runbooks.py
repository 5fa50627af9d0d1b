"""What the runbooks tell an operator to ask and to run, against a running pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.outside import Outside, run_cli
from tests.unit.deploy.rules import PAGES, blocks

QUERIES = [
    pytest.param(path, sql, id=f"{path.stem}-{number}")
    for path in PAGES
    for number, sql in enumerate(blocks(path, "sql"))
]
COMMANDS = sorted(
    {
        tuple(line.split()[1:])
        for path in PAGES
        for block in blocks(path, "sh")
        for line in block.splitlines()
        if line.startswith(".venv/bin/midstream ")
    }
)


@pytest.mark.parametrize(("path", "sql"), QUERIES)
def test_a_query_is_answered(outside: Outside, path: Path, sql: str) -> None:
    outside.rows(sql)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_runs(outside: Outside, command: tuple[str, ...]) -> None:
    done = run_cli(outside.pipeline, *command)
    # 1 is an answer too: nothing is complete yet, or a check finds this machine wanting.
    answers = (0, 1) if command in (("audit",), ("check",)) else (0,)
    assert done.returncode in answers, done.stdout + done.stderr
    assert done.stdout
    assert "Traceback" not in done.stderr
