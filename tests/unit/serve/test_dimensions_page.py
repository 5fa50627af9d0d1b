"""docs/dimensions.md says what the API answers; it and the page of sources name only what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from midstream.settings import Settings
from serve.app import create_app

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGE = (DOCS / "dimensions.md").read_text("utf-8")
PAGES = ["dimensions.md", "dimension-sources.md"]

RAISED = re.compile(
    r'(?:ApiError\(\d+, |Error\(|_refuse\(|Refusal\([a-z_.]+, |_reply\(request, [a-z\d]+, )"([A-Z_\d]{4,})"'
)
RAISE = (
    *("serve/dimensions.py", "serve/bodies.py", "serve/sync/routes.py", "serve/register/body.py", "serve/auth.py"),
    *("serve/errors.py", "midstream/dimensions.py", "midstream/dimension_files.py", "midstream/row_files.py"),
)
UNSAID = {"CLIENT_GONE", "INTERNAL_ERROR"}  # nobody is there to read it; a fault of ours
PATHS = re.compile(r"/v1/dimensions|/v1/sync|/v3/device/register|/api/data/v1/index/sync")


def rows() -> list[tuple[str, str]]:
    """Return statuses and codes of each row of the page's tables of errors."""
    return re.findall(r"^\| (\d{3}(?:, \d{3})*) \| ([^|]+) \|", PAGE, re.MULTILINE)


def codes(text: str) -> set[str]:
    return set(re.findall(r"`([A-Z]+_?[A-Z0-9_]+)`", text))


def test_the_codes_are_those_that_there_are() -> None:
    table = PAGE[PAGE.index("## What cannot be taken") : PAGE.index("## On Kafka")]
    said = codes("".join(cell for _, cell in re.findall(r"^\| (\d{3}[\d, ]*) \| ([^|]+) \|", table, re.MULTILINE)))
    raised = {code for path in RAISE for code in RAISED.findall((ROOT / path).read_text("utf-8"))}
    assert said == raised - UNSAID


def test_the_codes_of_a_sync_are_those_that_there_are() -> None:
    said = {code for _, cell in rows() for code in codes(cell) if code.startswith("UOS_")}
    envelope = (ROOT / "serve" / "sync" / "envelope.py").read_text("utf-8")
    assert said == set(re.findall(r'"(UOS_\d{4})"', envelope))


def test_the_statuses_are_those_that_there_are(tmp_path: Path) -> None:
    said = {status for statuses, _ in rows() for status in statuses.split(", ")}
    paths = create_app(Settings(home=tmp_path)).openapi()["paths"]
    there = {
        status
        for path, calls in paths.items()
        if PATHS.match(path)
        for call in calls.values()
        for status in call["responses"]
        if int(status) >= 400
    }
    assert said == there


@pytest.mark.parametrize("name", PAGES)
def test_settings_and_metrics_are_those_that_there_are(name: str) -> None:
    text = (DOCS / name).read_text("utf-8")
    settings = set(re.findall(r"MIDSTREAM_[A-Z_]+", text))
    assert settings - {f"MIDSTREAM_{field.upper()}" for field in Settings.model_fields} == set()
    assert settings
    metrics = (DOCS / "metrics.md").read_text("utf-8")
    assert [metric for metric in re.findall(r"`(midstream_[a-z_]+)`", text) if f"`{metric}`" not in metrics] == []


@pytest.mark.parametrize("name", [*PAGES, "operators.md", "analysts.md"])
def test_links_lead_somewhere(name: str) -> None:
    for file, anchor in re.findall(r"\]\(([a-z-]+\.md)?(?:#([^)]+))?\)", (DOCS / name).read_text("utf-8")):
        target = (DOCS / (file or name)).read_text("utf-8")
        prose = re.sub(r"^```.*?^```$", "", target, flags=re.DOTALL | re.MULTILINE)
        titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, f"{name} links to {file}#{anchor}"
