"""What the pages say is there: links and anchors, commands and their options, targets of make, settings, metrics."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from midstream.cli import cli
from tests.unit.deploy.processes import unknown_settings

ROOT = Path(__file__).parents[2]
_FILES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in _FILES)
NOT_SETTINGS = {"MIDSTREAM_X", "MIDSTREAM_X_FILE", "MIDSTREAM_LICENCE_KEY"}
"""Stands for any setting; a partner's own variable in examples."""
NOT_METRICS = {
    "midstream_analyst", "midstream_api", "midstream_jobs", "midstream_migrator", "midstream_writer",
    "midstream_restoring",
}  # fmt: skip
"""Roles and a database of ClickHouse."""

each_page = pytest.mark.parametrize("page", PAGES)


@cache
def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def prose(page: str) -> str:
    """Return the page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text(page), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: str) -> set[str]:
    """Return those of the headings, as GitHub and GitLab make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.*)$", prose(page), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = "".join(letter for letter in words if letter.isalnum() or letter in " -_").replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


def dead_links(page: str, targets: list[str]) -> list[str]:
    """Return those that lead nowhere; what is elsewhere on the internet is not looked at."""
    dead = []
    for target in targets:
        path, _, anchor = target.partition("#")
        leads_to = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        if (
            not leads_to.exists()
            or not leads_to.is_relative_to(ROOT)
            or (anchor and leads_to.suffix == ".md" and anchor not in anchors(leads_to.relative_to(ROOT).as_posix()))
        ):
            dead.append(target)
    return dead


@each_page
def test_links_lead_somewhere(page: str) -> None:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not re.match(r"[a-z]+:", target)]
    assert dead_links(page, targets) == []


def test_a_link_that_leads_nowhere_would_be_seen() -> None:
    links = ["docs/operators.md#alerts", "docs/nowhere.md", "docs/operators.md#nowhere", "#midstream", "../"]
    assert dead_links("README.md", links) == ["docs/nowhere.md", "docs/operators.md#nowhere", "../"]


def code(page: str) -> Iterator[str]:
    """Lines of code in blocks, continued ones joined, and pieces of code in the prose."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE):
        yield from re.sub(r"\\\n", " ", block).splitlines()
    yield from re.findall(r"`([^`\n]+)`", prose(page))


def wrong_command(line: str) -> str | None:
    """Tell what of `midstream ...` in a line is none, if anything is; words that are no command are passed over."""
    called = re.search(r"(?:^|[\s(])(?:\.venv/bin/)?midstream ([a-z].*)", line)
    if called is None:
        return None
    try:
        words = shlex.split(re.split(r"\s[|>#&;]|…|\.\.\.", called[1])[0])
    except ValueError:
        return None
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            return words[0]
        command = found
        words.pop(0)
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help", "-h"}
    return next((word for word in words if word.startswith("-") and word.partition("=")[0] not in known), None)


@each_page
def test_commands_are_commands(page: str) -> None:
    # helm's and kubectl's own words: a release, a namespace and a secret are named `midstream` too.
    lines = [re.sub(r"^(helm|kubectl) .*? -- |^(helm|kubectl) .*", "", line) for line in code(page)]
    assert [(line, wrong) for line in lines if (wrong := wrong_command(line))] == []


def test_a_command_that_is_none_would_be_seen() -> None:
    assert wrong_command("midstream traces MID") == "traces"
    assert wrong_command(".venv/bin/midstream token make my-app") == "make"
    assert wrong_command("midstream audit --since 7d") == "--since"
    assert wrong_command("midstream restore /backups/1 --only clickhouse --replace  # all") is None


@each_page
def test_what_make_and_python_run_is_there(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = {name for line in code(page) for name in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", line)}
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    ours = r"python -m ((?:bench|deploy|ingest|midstream|processors|schemas|serve|tests)[\w.]*)"
    modules = {name for line in code(page) for name in re.findall(ours, line)}
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


@each_page
def test_settings_and_metrics_are_ours(page: str) -> None:
    settings = set(re.findall(r"\bMIDSTREAM_[A-Z_]*[A-Z]\b", text(page))) - NOT_SETTINGS
    assert unknown_settings(settings) == set()
    known = set(re.findall(r"^\| `(midstream_\w+)`", text("docs/metrics.md"), re.MULTILINE)) | NOT_METRICS
    named = set(re.findall(r"\bmidstream_[a-z_]*[a-z]\b", text(page)))
    assert {name for name in named if {name, re.sub(r"_(bucket|sum|count)$", "", name)}.isdisjoint(known)} == set()


def test_help_names_every_target_that_is_for_people() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    shown = set(re.findall(r"^  make ([a-z-]+) ", done.stdout, re.MULTILINE))
    steps = {"prerequisites", "environment", "test-environment", "peers-environment", "tool"}
    assert shown == set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) - steps
    # A make that was started by another one says so, in lines of its own.
    lines = [line for line in done.stdout.splitlines() if not line.startswith("make[")]
    assert len({len(re.match(r"  make [a-z-]+ +", line)[0]) for line in lines}) == 1  # type: ignore[index]
