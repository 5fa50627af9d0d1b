"""Every command of docs/apps.md works against a running pipeline."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.pipeline import Pipeline

PAGE = Path(__file__).parents[2] / "docs" / "apps.md"


def test_commands_run_as_they_stand(pipeline: Pipeline, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    script = "set -euo pipefail\n" + "\necho\n".join(blocks)
    clickhouse = pipeline.clickhouse_dsn.rpartition("/")[0]
    for here, there in (
        ("http://127.0.0.1:8000", pipeline.base_url),
        ("http://127.0.0.1:8123", clickhouse),
        (".midstream/demo-token", str(pipeline.home.token)),
        (".venv/bin/midstream", f"{sys.executable} -m midstream.cli"),
    ):
        assert here in script
        script = script.replace(here, f'"{there}"' if " " in there and here.startswith(".midstream") else there)
    script = script.replace("curl -sS", "curl -sS --fail-with-body --max-time 20")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, **pipeline.env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count('"status":"successful"') == 3  # two batches and a registered credential
    assert '"failed"' not in done.stdout
