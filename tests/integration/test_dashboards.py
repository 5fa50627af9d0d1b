"""Every panel of Grafana's dashboards shows something of a pipeline that works, as a real Prometheus sees it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import promql_parser
import pytest

from deploy.grafana.alerts import RULES
from deploy.grafana.board import RUNBOOKS, TITLES, plain
from deploy.grafana.files import DASHBOARDS
from tests.integration.jobs import push_and_wait, synced
from tests.integration.outside import Outside, make_body, make_event, unique
from tests.integration.partners import Partner
from tests.integration.test_assignments import Platform
from tests.integration.test_probes import SELDOM, declared
from tests.support.pipeline import Pipeline
from tests.support.prometheus import Prometheus, prometheus, why_no_prometheus
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(why_no_prometheus()), reason=why_no_prometheus()),
]

JOBS = {"midstream-web": "port"} | {
    f"midstream-{name}": f"{name}_metrics_port" for name in ("validate", "store", "devices", "jobs")
}


@pytest.fixture(scope="module")
def seen(outside: Outside, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the shared pipeline before, during and after traffic of every kind."""
    settings = outside.pipeline.settings
    targets = {job: f"127.0.0.1:{settings[port]}" for job, port in JOBS.items()}
    with prometheus(targets, rules=tuple(RULES.glob("*.yml"))) as found:
        everything(outside)
        report_as_devices(outside.pipeline, tmp_path_factory.mktemp("fleet") / "keys.json")
        assert all(state == "up" for state in found.targets().values())
        yield found


def everything(outside: Outside) -> None:
    """Send something of every kind, and wait until it is through."""
    platform, partner = Platform(outside), Partner(outside, ("D001", "0" * 40))
    user, late = unique("u"), unique("u")
    push_and_wait(outside, "user", user, {"name": "in time"})
    event = make_event(actor=user)
    batch_ids = [
        outside.send([event, make_event("LOG"), make_event(actor=late)]),
        outside.send([event, {"eid": "NOBODY"}]),
    ]
    assert outside.post(b"nonsense").status_code == 400
    outside.settle(batch_ids)
    assert outside.post(make_body([event]), path="/v1/validate").status_code == 200
    assert outside.operate("GET", f"/v1/trace/{event['mid']}").status_code == 200
    body = json.dumps({"request": {"producer": "app", "userDeclaredLocation": {"state": "Karnataka"}}}).encode()
    assert outside.post(body, path=f"/v3/device/register/{unique('d')}").status_code == 200
    asset = unique("asset")
    assert platform.send("POST", asset, {"engagement_score": 5}).status_code == 201
    assert platform.send("PUT", asset, {"engagement_score": 6}).status_code == 200
    day = datetime.now(UTC).date() - timedelta(days=2)  # closed, also if midnight comes now
    assert partner.archive(day, day).names == [f"aggregated-{day}.gz"]
    push_and_wait(outside, "user", late, {"name": "late"})
    for one in (late, user):  # how long jobs of a kind take is seen from the second on
        synced(outside, "user", one, force=True)
    outside.wait_accounted()


def report_as_devices(pipeline: Pipeline, keys: Path) -> None:
    """Let some simulated devices register and report."""
    command = [sys.executable, "-m", "midstream.cli", "simulate", "fleet", "--url", pipeline.base_url, "--devices", "5",
               "--rate", "10", "--seconds", "2", "--keys", str(keys)]  # fmt: skip
    ran = subprocess.run(command, env={**os.environ, **pipeline.env}, capture_output=True, text=True, timeout=90)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"


def queries(uid: str) -> list[tuple[str, str, str]]:
    """Return the panel's title, its unit and the query of each target, as Grafana would ask it."""
    board = json.loads((DASHBOARDS / f"{uid}.json").read_text("utf-8"))
    return [
        (
            panel["title"],
            panel["fieldConfig"]["defaults"]["unit"],
            plain(target["expr"]).replace("$instance", ".*").replace("$job", "midstream-.+"),
        )
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


UIDS = sorted(set(TITLES) - {RUNBOOKS})


@pytest.mark.parametrize("uid", UIDS)
def test_no_panel_is_empty_and_no_value_absurd(seen: Prometheus, uid: str) -> None:
    def wrong() -> dict[tuple[str, str], object]:
        found: dict[tuple[str, str], object] = {}
        for title, unit, expr in queries(uid):
            values = [one.value for one in seen.query(expr)]
            numbers = [value for value in values if not math.isnan(value)]
            most = 1 + 1e-9 if unit == "percentunit" else math.inf
            if not numbers or not all(0 <= value < math.inf and value <= most for value in numbers):
                found[title, expr] = values
        return found

    # Rules are looked at every ten seconds, and some ask for what others have recorded.
    wait_until("the last scrapes are in", lambda: not wrong() or None, 40, 1.0)


def rare() -> set[str]:
    """Return what a pipeline that works has no sample of: metrics with labels that count what goes wrong."""
    return {family.name for name in SELDOM for family in declared()[name].describe()}


@pytest.mark.parametrize("uid", UIDS)
def test_every_series_asked_for_is_there(seen: Prometheus, uid: str) -> None:
    """A query that gives 0 for want of a series must not hide a name, job or label's value that is none."""
    exposed = seen.exposed()
    for title, _, expr in queries(uid):
        selectors: list[promql_parser.VectorSelector] = []
        promql_parser.walk(promql_parser.parse(expr), lambda node: _keep(node, selectors))  # noqa: B023
        for selector in selectors:
            name = str(selector.name)
            if name in ("up", "ALERTS"):
                continue
            family = re.sub("_(bucket|sum|count)$", "", name)
            assert family in exposed, f"{title}: {name}"
            jobs = [matcher.value for matcher in selector.matchers.matchers if matcher.name == "job"]
            assert any(re.fullmatch(jobs[0], job) for job in exposed[family]), f"{title}: {name} of {jobs}"
            failures = 'status=~"5..' in selector.prettify()
            if family.removesuffix("_total") not in rare() and not failures:
                assert seen.query(selector.prettify()), f"{title}: nothing of {selector.prettify()}"


def _keep(node: object, selectors: list[promql_parser.VectorSelector]) -> None:
    if isinstance(node, promql_parser.VectorSelector):
        selectors.append(node)


def test_what_flows_is_what_was_sent(seen: Prometheus, outside: Outside) -> None:
    """The overview's numbers agree with what the collector and ClickHouse say."""
    before = seen.value("sum(midstream_received_events_total)")
    stored = seen.value("sum(midstream_stored_events_total)")
    outside.settle([outside.send([make_event() for _ in range(7)])])
    wait_until("Prometheus has seen them", lambda: seen.value("sum(midstream_received_events_total)") == before + 7, 10)
    wait_until("and stored", lambda: seen.value("sum(midstream_stored_events_total)") == stored + 7, 10)
    shown = next(expr for title, _, expr in queries("midstream-overview") if title == "Events in the time shown")
    assert 7 <= seen.value(shown) < before + 8
