"""`make demo` against a real pipeline, and every query of docs/analysts.md against what it left there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.demo.exercises import LEARNERS
from deploy.local.demo.fleet import MIN_STUDENTS, make_fleet
from tests.support.pipeline import ROOT, Pipeline

SEED = 77
QUERIES = sorted((ROOT / "docs" / "queries").glob("*.sql"))
PAGE = (ROOT / "docs" / "analysts.md").read_text("utf-8")

Row = dict[str, Any]


def run_demo(pipeline: Pipeline) -> Row:
    command = [
        sys.executable,
        "-m",
        "deploy.local.demo",
        "--seed",
        str(SEED),
        "--students",
        str(MIN_STUDENTS),
        "--json",
    ]
    done = subprocess.run(command, env=pipeline.env, cwd=ROOT, capture_output=True, text=True, timeout=70)
    assert done.returncode == 0, done.stderr + done.stdout
    summary: Row = json.loads(done.stdout)
    return summary


def how_far(demo: Row) -> list[tuple[str, list[tuple[int, ...]]]]:
    """Return how many learners came how far; a mean may be rounded otherwise the next time."""
    counted = ("opened", "completed", "stuck", "skipped")
    return [
        (asset["asset_slug"], [tuple(step[name] for name in counted) for step in asset["steps"]])
        for asset in demo["exercises"]["report"]
    ]


@pytest.fixture(scope="module")
def demo(pipeline: Pipeline) -> Row:
    return run_demo(pipeline)


@pytest.fixture(scope="module")
def answers(pipeline: Pipeline, demo: Row) -> dict[str, list[Row]]:
    """Return the rows of each query of the page, by its file's name."""
    fleet = make_fleet(SEED, MIN_STUDENTS)
    student = next(device.users[0] for device in fleet.devices if device.story == "shared file")
    parameters = {
        "param_channel": student.school.channel,
        "param_user": student.id,
        "param_content": fleet.contents[1].id,
        "param_mid": demo["event"]["mid"],
    }
    found = {}
    for path in QUERIES:
        reply = httpx.post(
            pipeline.clickhouse_dsn.removesuffix("/midstream"),
            params={"database": "midstream", "default_format": "JSON", "output_format_json_quote_64bit_integers": "0"}
            | parameters,
            content=path.read_bytes(),
            timeout=20,
            trust_env=False,
        )
        assert reply.status_code == 200, f"{path.name}: {reply.text[:500]}"
        found[path.stem] = reply.json()["data"]
    return found


def test_the_demo_adds_up(demo: Row) -> None:
    assert demo["problems"] == []
    assert demo["clickhouse"] == demo["ledger"]
    assert demo["sent"]["events"] == demo["clickhouse"]["received"] > 3_000
    assert demo["clickhouse"]["duplicate"] > 100
    assert demo["differing_duplicates"] > 0
    assert sum(row["count"] for row in demo["rejects"]) == demo["clickhouse"]["rejected"] > 20
    assert all(row["message"] for row in demo["rejects"])
    tables = {row["table"]: row["of_this_run"] for row in demo["tables"]}
    assert tables["learning_events"] + tables["operational_events"] == demo["clickhouse"]["stored"]
    assert tables["batches"] == demo["sent"]["batches"]
    assert all(query["rows"] for query in demo["queries"])
    assert not any(row["unaccounted"] for row in demo["accounting"])
    assert sum(row["learners"] for row in demo["exercises"]["report"]) == LEARNERS


def test_a_second_demo_adds_a_day(pipeline: Pipeline, demo: Row) -> None:
    again = run_demo(pipeline)
    assert again["run"] != demo["run"]
    assert again["clickhouse"] == demo["clickhouse"]
    assert how_far(again) == how_far(demo)
    before, after = ({row["table"]: row["in_all"] for row in one["tables"]} for one in (demo, again))
    assert after["learning_events"] - before["learning_events"] >= demo["tables"][0]["of_this_run"]


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_a_query_answers_with_the_columns_that_the_page_shows(path: Path, answers: dict[str, list[Row]]) -> None:
    rows = answers[path.stem]
    assert rows
    output = PAGE.split(f"](queries/{path.name})")[1].split("```")[3].strip()
    assert list(rows[0]) == re.findall(r"[a-z_]+", output.splitlines()[0])


def test_the_shared_event_is_stored_from_the_file_and_came_again_from_the_phone(
    answers: dict[str, list[Row]], demo: Row
) -> None:
    rows = answers["06-one-event"]
    arrivals = demo["event"]["arrivals"]
    again = len(arrivals) - 1  # more than one where a reply got lost
    assert again >= 1
    assert [row["outcome"] for row in rows] == ["stored"] + ["duplicate"] * again
    assert arrivals[0]["sent_by"] == "the administrator"
    assert arrivals[-1]["sent_by"] == "the student's phone"
    assert [row["batch_id"] for row in rows] == [arrival["batch_id"] for arrival in arrivals]
    assert len({arrival["batch_did"] for arrival in arrivals}) == 1


def test_answers_say_what_the_day_was_like(answers: dict[str, list[Row]]) -> None:
    assert all(row["minutes"] >= 0 and row["students"] <= MIN_STUDENTS for row in answers["01-learning-by-day"])
    assert len(answers["01-learning-by-day"]) >= 4  # the phone was offline for days
    assert all(0 <= row["percent_right"] <= 100 for row in answers["02-hardest-questions"])
    assert {row["state"] for row in answers["03-students-by-district"]} == {"Karnataka"}
    assert answers["05-one-content"][0]["name"] == "Practice: fractions"
    waited = {row["waited"][0] for row in answers["07-offline-delay"] if row["channel"] == "lakeside"}
    # Late in the day the last lesson is more than a day ago, and nothing waited for less.
    assert {"2", "3"} <= waited <= {"1", "2", "3", "4"}
    hours = {row["hours_behind"] for row in answers["08-wrong-clocks"]}
    assert -5 in hours
    assert max(hours) > 400_000  # 1970
    reasons = {row["why"]: row["duplicates"] for row in answers["09-duplicates"]}
    assert len(reasons) == 3
    assert min(reasons.values()) > 0


def test_nothing_is_unaccounted(answers: dict[str, list[Row]]) -> None:
    ours = [row for row in answers["11-accounting"] if row["channel"] in ("hillview", "lakeside")]
    assert len(ours) == 2
    for row in ours:
        assert row["received"] == row["stored"] + row["duplicate"] + row["rejected"]
        assert row["unaccounted"] == row["in_flight"] == 0
