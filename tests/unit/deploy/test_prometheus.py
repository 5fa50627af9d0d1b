"""deploy/prometheus and docs/runbooks: each alert is tried, documented and asks for what processes really show."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import Command, Group
from prometheus_client.metrics import MetricWrapperBase

from midstream import metrics
from midstream.cli import cli
from midstream.settings import Settings
from midstream.topics import GROUP_DEVICES, GROUP_DIMENSIONS, GROUP_RECEIPTS, GROUP_STORE, GROUP_VALIDATE
from tests.integration.test_probes import SELDOM, SHOWN
from tests.unit.deploy.rules import (
    ALERTS,
    PAGES,
    PROMETHEUS,
    RECORDED,
    ROOT,
    RUNBOOKS,
    TESTS,
    blocks,
    selectors,
)

DASHBOARDS = {
    "midstream-overview",
    "midstream-collector",
    "midstream-workers",
    "midstream-clickhouse",
    "midstream-devices",
    "midstream-exhaust",
}
JOBS = {
    "midstream-web": "web",
    "midstream-collector": "web",
    "midstream-api": "web",
    "midstream-validate": "validate",
    "midstream-store": "store",
    "midstream-devices": "devices",
    "midstream-jobs": "jobs",
}
OF_PROMETHEUS = {"up": {"job", "instance"}}
OF_RECORDED = {"system", "job", "group", "topic", "reason", "disk", "instance"}

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool: Debian's package prometheus")


def run_promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_the_configuration_and_the_rules_hold() -> None:
    run_promtool("check", "config", "prometheus.yml")
    run_promtool("check", "rules", *(str(path) for path in sorted((PROMETHEUS / "rules").glob("*.yml"))))


@promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_are_to(path: Path) -> None:
    run_promtool("test", "rules", f"tests/{path.name}")


def test_rules_are_looked_at_as_often_as_their_windows_need() -> None:
    """Whoever loads them has another interval; `:sustained` wants two values within 25 s."""
    for path in (PROMETHEUS / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            assert group.get("interval") == "10s", group["name"]


def stories() -> list[list[set[str]]]:
    """Return of each story of the tests which alerts fire at its moments."""
    found = []
    for path in TESTS:
        for story in yaml.safe_load(path.read_text("utf-8"))["tests"]:
            checks = story["promql_expr_test"]
            assert {check["expr"] for check in checks} == {'count by (alertname) (ALERTS{alertstate="firing"})'}
            found.append([set(re.findall(r'alertname="(\w+)"', str(check["exp_samples"]))) for check in checks])
    return found


def test_each_alert_fires_alone_in_a_story_and_is_silent_in_it() -> None:
    for name in ALERTS:
        assert any({name} in moments and set() in moments for moments in stories()), name
    assert all(len(firing) <= 1 for moments in stories() for firing in moments)


def test_prometheus_scrapes_what_make_run_starts() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    fields = Settings.model_fields
    ports = {
        "midstream-web": "port",
        **{f"midstream-{one}": f"{one}_metrics_port" for one in ("validate", "store", "devices", "jobs")},
    }
    assert {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs} == {
        name: [f"127.0.0.1:{fields[port].default}"] for name, port in ports.items()
    }


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_an_operator_needs(name: str) -> None:
    alert = ALERTS[name]
    assert re.fullmatch(r"Midstream([A-Z][a-z]+)+", name)
    assert set(alert["labels"]) == {"severity"}
    assert alert["labels"]["severity"] in ("page", "ticket")
    annotations = alert["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard"}
    assert annotations["dashboard"] in DASHBOARDS
    assert ROOT / annotations["runbook_url"] == RUNBOOKS / f"{name}.md"


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    assert {path.stem for path in PAGES} == set(ALERTS)
    index = (RUNBOOKS / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (page|ticket) \|", index, re.MULTILINE)
    assert listed == [(name, name, alert["labels"]["severity"]) for name, alert in ALERTS.items()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_its_four_parts(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith(f"# {path.stem}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "What it means",
        "What to look at",
        "What to do",
        "When it is over",
    ]
    assert blocks(path, "promql") or blocks(path, "sql")


# What is asked for


def families() -> dict[str, MetricWrapperBase]:
    """Return the variable of each sample's name that a process can show."""
    found = {}
    for declared in vars(metrics).values():
        if isinstance(declared, MetricWrapperBase):
            [family] = declared.describe()
            ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
            found |= {f"{family.name}{end}": declared for end in ends}
    return found


FAMILIES = families()
VARIABLES = {id(value): name for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)}


def shown_by(metric: MetricWrapperBase) -> set[str]:
    variable = VARIABLES[id(metric)]
    # Of what every process has, and of what an attempt of any worker shows, one is named there.
    if variable in ("BUILD_INFO", "PROCESS_START_SECONDS"):
        return set(JOBS.values())
    if variable in ("POISON_RECORDS", "INSERT_RETRIES", "SUSPECT_RECORDS"):
        return {"validate", "store", "devices"}
    if variable in ("DISK_FREE_BYTES", "DISK_TOTAL_BYTES"):
        return {"web", "jobs"}
    return {SELDOM.get(variable, "")} | {process for process, shown in SHOWN.items() if variable in shown}


def check_expression(expression: str) -> None:
    """Fail where it asks for what nobody shows: a metric, a label of it, or of a job that does not set it."""
    for name, matchers in selectors(expression):
        if name in OF_PROMETHEUS:
            assert {label for label, _ in matchers} <= OF_PROMETHEUS[name], expression
        elif name in RECORDED:
            assert {label for label, _ in matchers} <= OF_RECORDED, expression
        else:
            assert name in FAMILIES, f"nobody shows {name}: {expression}"
            metric = FAMILIES[name]
            labels = {"job", "instance", "le", *metric._labelnames}
            assert {label for label, _ in matchers} <= labels, expression
            # A gauge without labels is 0 in each process that does not set it.
            asked = [{job for job in JOBS if re.fullmatch(value, job)} for label, value in matchers if label == "job"]
            assert asked, f"{name} of which job? {expression}"
            assert {JOBS[job] for job in asked[0]} & shown_by(metric), f"{name} is not of {asked[0]}: {expression}"


@pytest.mark.parametrize("rule", [*RECORDED.values(), *ALERTS.values()], ids=lambda rule: rule.get("record", "alert"))
def test_a_rule_asks_for_what_processes_show(rule: dict[str, Any]) -> None:
    check_expression(rule["expr"])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_asks_for_what_processes_show(path: Path) -> None:
    for expression in blocks(path, "promql"):
        check_expression(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "midstream_nothing{job='midstream-store'}",
        "midstream_stored_events_total{job='midstream-store', tabel='x'}",
        "midstream_unaccounted_events{job='midstream-validate'}",
        "midstream_unaccounted_events",
        "rate(midstream_stored_events{job='midstream-store'}[5m])",
        "midstream:nothing > 1",
    ],
)
def test_the_check_itself_finds_what_nobody_shows(expression: str) -> None:
    with pytest.raises(AssertionError):
        check_expression(expression)


def test_a_groups_lag_is_that_of_a_job() -> None:
    """`midstream:lag_seconds` takes a group's name for a job's."""
    assert {GROUP_VALIDATE, GROUP_STORE, GROUP_DEVICES} <= set(JOBS)
    renamed = RECORDED["midstream:lag_seconds"]["expr"]
    for group in (GROUP_RECEIPTS, GROUP_DIMENSIONS):
        assert re.fullmatch(r"midstream-(?:receipts|dimensions)", group)
    assert "midstream-(?:receipts|dimensions)" in renamed


# Commands, settings and log lines of the pages


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_names_what_there_is(path: Path) -> None:
    text = path.read_text("utf-8")
    for words in re.findall(r"(?:`|\.venv/bin/)midstream ([a-z ]+)", text):
        command: Command = cli
        for word in words.split():
            if isinstance(command, Group):
                known = command.get_command(None, word)  # type: ignore[arg-type]
                assert known is not None, f"midstream {words}"
                command = known
    for setting in re.findall(r"`MIDSTREAM_([A-Z_]+)`", text):
        assert setting.lower() in Settings.model_fields, setting
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (path.parent / link).exists(), link
    events = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", text)) - {"retention.bytes"}  # Kafka's
    events |= set(re.findall(r"grep -h ([a-z_.]+) ", text))
    for event in events - LOGGED:
        pytest.fail(f"{event} is logged by nobody")


def logged() -> set[str]:
    found: set[str] = set()
    for package in ("midstream", "ingest", "processors", "serve", "deploy"):
        for path in (ROOT / package).rglob("*.py"):
            found |= set(re.findall(r'"([a-z_]+\.[a-z_]+)"', path.read_text("utf-8")))
    return found


LOGGED = logged()
