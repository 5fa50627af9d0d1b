"""Every command of docs/apps.md works against a running pipeline."""

import sys
from pathlib import Path

from tests.integration.pages import run_page
from tests.support.pipeline import Pipeline

PAGE = Path(__file__).parents[2] / "docs" / "apps.md"


def test_commands_run_as_they_stand(pipeline: Pipeline, tmp_path: Path) -> None:
    changes = (
        ("http://127.0.0.1:8000", pipeline.base_url),
        ("http://127.0.0.1:8123", pipeline.clickhouse_dsn.rpartition("/")[0]),
        (".midstream/demo-token", f'"{pipeline.home.token}"'),
        (".venv/bin/midstream", f"{sys.executable} -m midstream.cli"),
    )
    done = run_page(PAGE, pipeline, tmp_path, changes)
    # Two batches, a device that registered, its profile, and a registered credential.
    assert done.stdout.count('"status":"successful"') == 5
    assert '"failed"' not in done.stdout
