"""Every command of docs/devices.md works against a running pipeline."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.pipeline import Pipeline

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"


def test_commands_run_as_they_stand(quiet: Pipeline, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    script = "set -euo pipefail\n" + "\necho\n".join(blocks)
    for here, there in (
        ("http://127.0.0.1:8000", quiet.base_url),
        ("http://127.0.0.1:8123", quiet.clickhouse_dsn.rpartition("/")[0]),
        (".venv/bin/midstream", f"{sys.executable} -m midstream.cli"),
        ("simulate fleet", f"simulate fleet --url {quiet.base_url} --keys {tmp_path}/keys.json"),
        ("simulate fleet", "simulate fleet --seed 77"),
    ):
        assert here in script
        script = script.replace(here, there)
    script = script.replace("curl -sS", "curl -sS --fail-with-body --max-time 20")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, **quiet.env},
        capture_output=True,
        text=True,
        timeout=180,
    )
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, said
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
