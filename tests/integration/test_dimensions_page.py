"""Every command and query of docs/dimensions.md and docs/dimension-sources.md works against a running pipeline."""

import json
import re
import sys
from pathlib import Path

import httpx
import pytest

from tests.integration.pages import blocks_of, run_page
from tests.support.pipeline import ROOT, Pipeline

pytestmark = pytest.mark.timeout(300)

PAGE = ROOT / "docs" / "dimensions.md"
SOURCES = ROOT / "docs" / "dimension-sources.md"
CHANGES = ((".venv/bin/midstream", f"{sys.executable} -m midstream.cli"),)


@pytest.fixture(scope="module")
def said(quiet: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the page's commands print."""
    changes = (
        *CHANGES,
        ("http://127.0.0.1:8000", quiet.base_url),
        ("http://127.0.0.1:8123", quiet.clickhouse_dsn.rpartition("/")[0]),
        (".midstream/demo-token", f'"{quiet.home.token}"'),
    )
    done = run_page(PAGE, quiet, tmp_path_factory.mktemp("page"), changes)
    return f"{done.stdout}\n{done.stderr}"


def test_commands_run_as_they_stand(said: str) -> None:
    shown = blocks_of(PAGE, "")
    assert len(shown) == 2  # how the event is at first, and after the syncs
    printed = "\n".join(line.rstrip() for line in said.split("\n"))
    for block in shown:
        assert re.sub(r" +$", "", block, flags=re.MULTILINE) in printed, (block, said)
    for expected in (
        '{"type":"user","id":"user-1001","version":',
        '"accepted":2,"refused":1,"errors":[{"line":3,"code":"INVALID_JSON","message":"the line is not JSON: ',
        "2 loaded",
        '"response":"SUCCESS"',
        '"esSyncResponse":{"user-1001":true,"nobody-1":false}',
        "1 objects; changed: 1 events",
        '"kind":"sync","type":"user","status":"',
        '"responseCode":"OK","result":{"message":"Device registered successfully","actions":[]}',
        '{"userDeclaredLocation":{"state":"Karnataka","district":"Mysuru"},"ipLocation":{"state":"","district":""}}',
    ):
        assert expected in said, (expected, said)
    assert said.count('"status": "cancelled"') + said.count('"cancel_requested": true') == 1


def test_an_erased_person_is_as_it_says(said: str) -> None:
    [line] = [line for line in said.split("\n") if line.startswith("{") and '"kind": "erase"' in line]
    report = json.loads(line)["report"]
    [example] = [json.loads(one) for one in blocks_of(PAGE, "json") if "pseudonym" in one]
    assert report.keys() == example.keys()
    assert report["changed"] == example["changed"]
    assert report["still_naming"] == example["still_naming"]
    assert all(one in report["left_to_time"] for one in example["left_to_time"])
    last = said[said.rindex("actor_id:") :]
    assert re.search(rf'actor_id: +{report["pseudonym"]}\nuser: +\nflags: +\{{"user":"missing",', last), last


def test_the_queries_find_what_was_stored(said: str, quiet: Pipeline) -> None:
    queries = blocks_of(PAGE, "sql")
    assert len(queries) == 2
    for query in queries:
        reply = httpx.post(
            quiet.clickhouse_dsn.rpartition("/")[0], params={"database": "midstream"}, content=query, trust_env=False
        )
        assert reply.status_code == 200, reply.text
    assert "content-1001\tMathematics\n" in reply.text


def test_a_source_is_looked_at_as_it_stands(quiet: Pipeline, tmp_path: Path) -> None:
    done = run_page(SOURCES, quiet, tmp_path, CHANGES)
    [shown] = blocks_of(SOURCES, "")
    assert shown in done.stderr, (done.stdout, done.stderr)
