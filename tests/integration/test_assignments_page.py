"""Every command of docs/assignments.md works against a running pipeline."""

import json
import re
import sys
from pathlib import Path

import httpx

from tests.integration.pages import run_page
from tests.support.pipeline import ROOT, Pipeline

PAGE = ROOT / "docs" / "assignments.md"
_COLUMNS = "SELECT name FROM system.columns WHERE database = 'midstream' AND table = '{}'"


def test_commands_run_as_they_stand(quiet: Pipeline, tmp_path: Path) -> None:
    changes = (
        ("http://127.0.0.1:8000", quiet.base_url),
        ("http://127.0.0.1:8123", quiet.clickhouse_dsn.rpartition("/")[0]),
        ("127.0.0.1:9092", quiet.kafka_servers),
        (".venv/bin/midstream", f"{sys.executable} -m midstream.cli"),
        (" .venv/bin/python", f" {sys.executable}"),
        (" schemas/avro/", f" {ROOT}/schemas/avro/"),
    )
    done = run_page(PAGE, quiet, tmp_path, changes)
    said = f"{done.stdout}\n{done.stderr}"
    for expected in (
        "own_telemetry",
        '"completion_rate":null,"metrics_algo_version":null,"total_time":"01:30:00"',
        '"engagement_score":90.5,"frustration_score":20.33,"completion_rate":50.0,"metrics_algo_version":1.0',
        '"asset_slug":"loops"',
        '"count":1,"next":null,"previous":null,"results":[{"user":123',
        "user,id,engagement_score",
        '"stuck":1',
        "00-count",
        "['engagement_score','completion_rate']",
        "1/123/intro-to-python ",
        "['telemetry'] ['metrics', 'engagement_score', 'frustration_score', 'completion_rate', 'metrics_algo_version']",
    ):
        assert expected in done.stdout, (expected, said)


def test_every_column_that_analysts_see_is_named(quiet: Pipeline) -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]+)`", prose))))
    for view in ("assignment_telemetry", "assignment_telemetry_history", "assignment_steps"):
        columns = httpx.post(quiet.clickhouse_dsn.rpartition("/")[0], content=_COLUMNS.format(view), trust_env=False)
        found = set(columns.raise_for_status().text.split())
        assert found
        assert found - named == set(), view


def test_the_replies_that_are_shown_are_json() -> None:
    shown = re.findall(r"^```json\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(shown) == 3
    for one in shown:
        assert isinstance(json.loads(one), dict)
