"""Every command of docs/exhaust.md works against a running pipeline with days that are over."""

import gzip
import json
import re
import sys
import zipfile
from pathlib import Path

import pytest

from midstream.clickhouse.migrate import load_migrations, render_statements
from midstream.exhaust.period import MAX_DAYS
from midstream.exhaust.variant import MAX_VALUE_CHARS, MAX_VALUES
from serve.exhaust import envelope
from serve.exhaust.service import MAX_DOWNLOADS
from tests.integration.closed_days import WEST, ClosedDays, resource_of
from tests.integration.pages import run_page
from tests.support.pipeline import ROOT

PAGE = ROOT / "docs" / "exhaust.md"


@pytest.fixture(scope="module")
def said(closed_days: ClosedDays, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the page's commands print, and the folder that they write to."""
    folder = tmp_path_factory.mktemp("page")
    changes = (
        ("http://127.0.0.1:8000", closed_days.pipeline.base_url),
        ("http://127.0.0.1:8123", closed_days.pipeline.clickhouse_dsn.rpartition("/")[0]),
        (".venv/bin/midstream", f"{sys.executable} -m midstream.cli"),
        ("\n.venv/bin/python", f"\n{sys.executable}"),
        # Midnight may have come since these days were made.
        ("$(date -u -d yesterday +%F)", str(closed_days.days[-1])),
        ("-o yesterday.zip $API ", "-o yesterday.zip $API/$DAY/$DAY "),
    )
    done = run_page(PAGE, closed_days.pipeline, folder, changes)
    return f"{done.stdout}\n{done.stderr}", folder


def test_commands_run_as_they_stand(closed_days: ClosedDays, said: tuple[str, Path]) -> None:
    printed, folder = said
    day = closed_days.days[-1]
    wanted = closed_days.of(WEST, day)
    [file] = folder.glob(f"dataset-{day}-to-{day}-*.zip")
    for name in ("yesterday.zip", "broken.zip", "mine.zip", "large.zip"):
        assert (folder / name).read_bytes() == file.read_bytes()
    assert len((folder / "all.jsonl").read_text().rstrip("\n").split("\n")) == len(wanted)
    for expected in (
        wanted[0].mid,
        f'"received_at":"{wanted[0].received_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")}"',
        '"mid","eid","ver","ets"',
        "\n304\n",
        f"{day} {len(wanted)} events, proven",
        f"D001 of {WEST}: 1 days, {len(wanted)} events, {file.stat().st_size:,} bytes",
        "proven: whole and unaltered",
        f'"events": {len(wanted)}',
        f"days/aggregated-{day}.gz: OK",
        "no day of the calendar: 2026-02-30",
        "\n400\n",
        "D002 is created",
        f"D001/{resource_of('partner-7')} D002/north",
        "1 day of D002 will be built anew",
        "31 days of D002 will be built anew",
        "partner-7 is revoked",
    ):
        assert expected in printed, (expected, printed)
    assert re.search(r"│ partner-west +│ D001 +│", printed)  # as wide as other tests' names are


def test_the_dataset_that_it_declares_has_what_it_says(closed_days: ClosedDays, said: tuple[str, Path]) -> None:
    day = closed_days.days[-1]
    lines = []
    with (
        zipfile.ZipFile(said[1] / "north.zip") as archive,
        archive.open(f"aggregated-{day}.gz") as inner,
        zipfile.ZipFile(inner) as hours,
    ):
        for name in hours.namelist():
            lines += [json.loads(line) for line in gzip.decompress(hours.read(name)).split(b"\n")[:-1]]
    wanted = [
        one for one in closed_days.sent if (one.day, one.channel) == (day, "north") and one.eid in ("START", "END")
    ]
    assert wanted
    assert [line["mid"] for line in lines] == [one.mid for one in wanted]
    columns = ("received_at", "batch_id", "event_index", "mid", "eid", "ets", "actor_id", "object_id")
    assert {tuple(line) for line in lines} == {columns}


def test_the_log_shows_what_the_page_downloaded(closed_days: ClosedDays, said: tuple[str, Path]) -> None:
    sql = (
        "SELECT dataset, format, eids, channels, what, method, status, first_byte > 0 AS part, complete "
        "FROM exhaust_downloads WHERE licence IN ('partner-west', 'partner-7') ORDER BY at"
    )
    rows = [tuple(row.values()) for row in closed_days.outside.rows(sql)]
    assert rows[0] == ("D001", "jsonl", [], [], "archive", "POST", 200, 0, True)
    assert ("D001", "csv", ["END", "START"], ["north"], "archive", "GET", 200, 0, True) in rows
    assert ("D001", "jsonl", [], [], "archive", "GET", 206, 1, True) in rows
    assert ("D001", "jsonl", [], [], "manifest", "GET", 200, 0, True) in rows
    assert rows[-1] == ("D002", "jsonl", [], [], "archive", "GET", 200, 0, True)


def test_every_column_of_the_log_is_named() -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]+)`", prose))))
    [statement] = (
        statement
        for migration in load_migrations()
        for statement in render_statements(migration.text, "")
        if statement.startswith("CREATE TABLE IF NOT EXISTS exhaust_downloads\n")
    )
    columns = set(re.findall(r"^    ([a-z_]+) ", statement.partition("\n)")[0], re.MULTILINE))
    assert "sent_bytes" in columns
    assert columns - named == set()


def test_every_error_code_is_named_with_its_statuses() -> None:
    constants = (value for value in vars(envelope).values() if isinstance(value, str))
    codes = {value for value in constants if re.fullmatch("[A-Z_]+", value)}
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([0-9, ]+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert {code for code, _ in rows} == codes
    assert sorted(status for code, status in rows if code == envelope.INVALID_DATE) == ["400", "410"]
    assert sorted(status for code, status in rows if code == envelope.INTERNAL) == ["500", "503"]


def test_the_limits_are_those_of_the_code() -> None:
    page = PAGE.read_text("utf-8")
    assert f"| days of a download | {MAX_DAYS} |" in page
    assert f"| {MAX_VALUES} each, of {MAX_VALUE_CHARS} characters |" in page
    assert f"| {MAX_DOWNLOADS} in each process of the API; more are 503 |" in page


def test_what_is_shown_is_json() -> None:
    shown = re.findall(r"^```json\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(shown) == 3
    for one in shown:
        assert isinstance(json.loads(one), dict)
