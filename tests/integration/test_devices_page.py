"""Every command of docs/devices.md works against a running pipeline."""

import sys
from pathlib import Path

from tests.integration.pages import run_page
from tests.support.pipeline import Pipeline

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"


def test_commands_run_as_they_stand(quiet: Pipeline, tmp_path: Path) -> None:
    changes = (
        ("http://127.0.0.1:8000", quiet.base_url),
        ("http://127.0.0.1:8123", quiet.clickhouse_dsn.rpartition("/")[0]),
        (".venv/bin/midstream", f"{sys.executable} -m midstream.cli"),
        ("simulate fleet", f"simulate fleet --url {quiet.base_url} --keys {tmp_path}/keys.json"),
        ("simulate fleet", "simulate fleet --seed 77"),
    )
    done = run_page(PAGE, quiet, tmp_path, changes)
    said = f"{done.stdout}\n{done.stderr}"
    assert '{"error":' not in done.stdout, said
    for expected in (
        '"success":true',
        '"stale":false',
        "event: state",
        '"status":"done"',
        '"state":"inuse"',
        '"revoked":true',
        "right_states",
    ):
        assert expected in done.stdout, (expected, said)
