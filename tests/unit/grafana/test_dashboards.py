"""The dashboards: what the code makes, whole as far as can be said without Grafana, of metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from deploy.grafana import board, queries
from deploy.grafana.alerts import Alert, load_alerts, metrics_in
from deploy.grafana.files import DASHBOARDS, files
from midstream import metrics
from midstream.settings import Settings
from tests.support.pipeline import ROOT

BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))
}
UNITS = {
    "short", "percentunit", "s", "bytes", "Bps", "cps", "eps", "mps", "wps", "reqps", "recps", "rowsps",
    "bool_on_off", "bool_yes_no",
}  # fmt: skip
# What Prometheus' client shows of each worker by itself, and what Prometheus adds.
NOT_OURS = {
    "up": set(),
    "ALERTS": {"alertname", "alertstate", "severity"},
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
    "process_open_fds": set(),
    "process_max_fds": set(),
    "process_start_time_seconds": set(),
}
BUILT_IN = {"__rate_interval", "__range", "__url_time_range", "__value.raw"}


def panels(uid: str) -> Iterator[dict[str, Any]]:
    yield from (panel for panel in BOARDS[uid]["panels"] if panel["type"] not in ("row", "text"))


def asked(uid: str) -> Iterator[tuple[str, str]]:
    """Yield the title of each panel and each of its queries."""
    for panel in panels(uid):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def declared() -> dict[str, set[str]]:
    """Return the labels of each series that the processes declare, by its name."""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            labels, name = set(metric._labelnames), queries.name_of(metric)
            (family,) = metric.describe()
            if family.type == "histogram":
                found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
            else:
                found[name] = labels
    return found


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)


def test_the_files_are_what_the_code_makes() -> None:
    assert {path.name: path.read_text("utf-8") for path in DASHBOARDS.glob("*.json")} == files(), "run `make reference`"
    assert set(BOARDS) == set(board.TITLES)


@pytest.mark.parametrize("uid", BOARDS)
def test_panels_do_not_overlap_and_fill_their_lines(uid: str) -> None:
    everything = BOARDS[uid]["panels"]
    ids = [panel["id"] for panel in everything]
    assert len(set(ids)) == len(ids)
    assert all(panel["gridPos"]["w"] > 0 and panel["gridPos"]["h"] > 0 for panel in everything)
    cells = [{(x, y) for x in columns(panel) for y in rows(panel)} for panel in everything]
    assert all(not first & second for first, second in combinations(cells, 2))
    taken = set().union(*cells)
    assert taken == {(x, y) for x in range(24) for y in range(max(y for _, y in taken) + 1)}


def columns(panel: dict[str, Any]) -> range:
    return range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])


def rows(panel: dict[str, Any]) -> range:
    return range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])


@pytest.mark.parametrize("uid", BOARDS)
def test_every_panel_says_what_it_shows_and_what_to_do(uid: str) -> None:
    assert BOARDS[uid]["title"] == board.TITLES[uid]
    assert BOARDS[uid]["tags"] == ["midstream"]
    for panel in panels(uid):
        where = f"{uid}: {panel['title']}"
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, where
        assert re.fullmatch(r".+\n\n\*\*Normal:\*\* .+\n\n\*\*Otherwise:\*\* .+", panel["description"]), where
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, where
        assert panel["targets"], where
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs), where
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"], where
            assert "legendFormat" in target, where
        for setting in re.findall(r"MIDSTREAM_([A-Z_]+)", panel["description"]):
            assert setting.lower() in Settings.model_fields, f"{where}: {setting}"
        levels = [step["value"] for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])]
        assert all(low < high for low, high in pairwise(levels[1:])), where
    titles = [panel["title"] for panel in panels(uid)]
    assert len(set(titles)) == len(titles), uid


@pytest.mark.parametrize("uid", BOARDS)
def test_queries_name_only_what_processes_declare(uid: str) -> None:
    known = declared() | NOT_OURS
    for title, expr in asked(uid):
        found: list[Any] = []
        tree = promql_parser.parse(board.plain(expr))
        promql_parser.walk(tree, lambda node: found.append(node))  # noqa: B023  # called here
        selected: set[str] = set()
        for node in found:
            if isinstance(node, promql_parser.VectorSelector):
                assert node.name in known, f"{uid}, {title}: {node.name}"
                labels = {matcher.name for matcher in node.matchers.matchers}
                assert labels <= known[node.name] | {"job", "instance"}, f"{uid}, {title}: {labels} of {node.name}"
                selected |= known[node.name] | {"job", "instance"}
        for node in found:
            if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
                assert set(node.modifier.labels) <= selected, f"{uid}, {title}: by {node.modifier.labels}"


def test_every_metric_is_on_a_dashboard() -> None:
    shown = "\n".join(expr for uid in BOARDS for _, expr in asked(uid))
    names = {queries.name_of(metric) for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)}
    missing = {name for name in names if not re.search(rf"\b{name}(?:_bucket|_sum|_count)?{{", shown)}
    assert missing == set(), "give each a panel where an operator looks for it"


@pytest.mark.parametrize("uid", BOARDS)
def test_legends_name_labels_that_the_query_keeps(uid: str) -> None:
    for panel in panels(uid):
        for target in panel["targets"]:
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            by = {label for group in re.findall(r"by \(([\w, ]+)\)", target["expr"]) for label in group.split(", ")}
            bare = by or {"job", "instance"}
            assert named <= bare, f"{uid}, {panel['title']}: {target['legendFormat']}"
            assert by - {"le"} <= named or not named, f"{uid}, {panel['title']}: two series may look the same"


@pytest.mark.parametrize("uid", BOARDS)
def test_only_variables_that_exist_are_used(uid: str) -> None:
    names = {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}
    used = {
        first or second
        for text in strings({**BOARDS[uid], "panels": list(panels(uid))})
        for first, second in re.findall(r"\$(?:{([\w.]+)}|([A-Za-z_]\w*))", text)
        if text != "$__all"
    }
    assert used <= names | BUILT_IN
    assert names <= used or uid == board.RUNBOOKS, "a variable that nothing uses"


@pytest.mark.parametrize("uid", BOARDS)
def test_counters_are_shown_as_rates_over_grafanas_interval(uid: str) -> None:
    for title, expr in asked(uid):
        assert (
            re.findall(r"\[(.+?)\]", expr) in [[kind] * expr.count("[") for kind in ("$__rate_interval", "$__range")]
            or "[" not in expr
        ), f"{uid}, {title}"
        for name in re.findall(r"\b(\w+_(?:total|bucket|sum|count))\{", expr):
            assert re.search(rf"(?:rate|increase)\({name}\{{", expr), f"{uid}, {title}: {name} is not a rate"


@pytest.mark.parametrize("uid", BOARDS)
def test_links_lead_to_dashboards_and_pages_that_exist(uid: str) -> None:
    found = 0
    for text in strings(BOARDS[uid]):
        for other in re.findall(r"/d/([\w-]+)\?", text):
            assert other in BOARDS
            found += 1
    for panel in panels(uid):
        for link in panel["links"]:
            assert link["url"].startswith("/d/"), link
    assert found or uid == board.EXHAUST, "no way on"


def test_a_label_or_metric_that_is_not_declared_is_refused() -> None:
    with pytest.raises(ValueError, match="midstream_requests_total has no label code"):
        queries.rate(metrics.REQUESTS, queries.WEB, "code")
    with pytest.raises(ValueError, match="no label code"):
        queries.select(metrics.REQUESTS, queries.WEB, code="200")


def test_panels_that_do_not_fill_a_line_are_refused() -> None:
    panel = board.Line([board.made.Panel()] * 5)
    with pytest.raises(ValueError, match="5 panels do not fill a line"):
        board.make_dashboard(board.OVERVIEW, "", queries.ALL, [board.Row("Row", [panel])])


def test_grafana_finds_its_data_source_and_the_dashboards() -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "midstream.yml").read_text("utf-8"))["datasources"]
    assert (source["type"], source["uid"]) == ("prometheus", board.DATASOURCE_UID)
    for where in ("prometheus", "compose/prometheus"):
        scraped = yaml.safe_load((ROOT / "deploy" / where / "prometheus.yml").read_text("utf-8"))
        interval = promql_parser.parse_duration(scraped["global"]["scrape_interval"])
        assert interval <= promql_parser.parse_duration(source["jsonData"]["timeInterval"]), where
    [provider] = yaml.safe_load((provisioning / "dashboards" / "midstream.yml").read_text("utf-8"))["providers"]
    assert provider["type"] == "file"
    assert not provider["allowUiUpdates"]
    for one in BOARDS.values():
        [default] = [each["current"] for each in one["templating"]["list"] if each["name"] == "datasource"]
        assert (default["value"], default["text"]) == (source["uid"], source["name"])


def test_the_jobs_asked_for_are_those_that_are_scraped() -> None:
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8"))
    jobs = {one["job_name"] for one in scraped["scrape_configs"]}
    for uid in BOARDS:
        for title, expr in asked(uid):
            for pattern in re.findall(r'job=~"(.+?)"', expr):
                assert pattern == "$job" or any(re.fullmatch(pattern, job) for job in jobs), f"{uid}, {title}"
    # Apart, collector and api are two jobs.
    for job in ("midstream-web", "midstream-collector", "midstream-api"):
        assert re.fullmatch(queries.WEB, job)


def runbook_of(url: str) -> str:
    """Return the title of the panel that a link to a runbook shows."""
    found = re.fullmatch(rf"/d/{board.RUNBOOKS}\?viewPanel=(\d+)", url)
    assert found is not None, url
    [title] = [panel["title"] for panel in BOARDS[board.RUNBOOKS]["panels"] if panel["id"] == int(found[1])]
    return str(title)


@pytest.mark.parametrize("alert", load_alerts(), ids=lambda alert: alert.name)
def test_from_an_alert_two_clicks_lead_to_its_cause_and_its_runbook(alert: Alert) -> None:
    """The alert's dashboard exists, a panel of it shows what the alert looks at, and links to the runbook."""
    assert alert.dashboard in BOARDS
    linked = [
        panel
        for panel in panels(alert.dashboard)
        for link in panel["links"]
        if board.RUNBOOKS in link["url"] and runbook_of(link["url"]) == alert.name
    ]
    assert linked, f"no panel of {alert.dashboard} shows any of {sorted(alert.metrics)}"
    for panel in linked:
        shown = {name for target in panel["targets"] for name in metrics_in(board.plain(target["expr"]))}
        assert shown & alert.metrics, panel["title"]


def test_the_table_of_firing_alerts_leads_to_dashboard_and_runbook() -> None:
    [table] = [panel for panel in panels(board.OVERVIEW) if panel["type"] == "table"]
    [target] = table["targets"]
    dashboards = {
        name: uid
        for uid, names in re.findall(r'"dashboard", "([\w-]+)", "alertname", "([\w|]+)"', target["expr"])
        for name in names.split("|")
    }
    assert dashboards == {alert.name: alert.dashboard for alert in load_alerts()}
    urls = {text.partition("$")[0]: text for text in strings(table["fieldConfig"]) if text.startswith("/d/")}
    assert set(urls) == {"/d/", f"/d/{board.RUNBOOKS}?viewPanel="}
    found = re.findall(r'"runbook", "(\d+)", "alertname", "(\w+)"', target["expr"])
    assert {name for _, name in found} == set(dashboards)
    for panel, name in found:
        assert runbook_of(f"/d/{board.RUNBOOKS}?viewPanel={panel}") == name


def test_every_alert_has_its_runbook_on_the_dashboard() -> None:
    """The whole page stands there, and no link in it leads beside Grafana's own pages."""
    texts = {panel["title"]: panel["options"]["content"] for panel in BOARDS[board.RUNBOOKS]["panels"][1:]}
    assert set(texts) == {alert.name for alert in load_alerts()}
    for alert in load_alerts():
        page = (ROOT / alert.runbook_url).read_text("utf-8")
        assert re.findall(r"^## (.+)$", texts[alert.name], re.M) == re.findall(r"^## (.+)$", page, re.M)
        for url in re.findall(r"\]\((.+?)\)", texts[alert.name]):
            assert url.startswith("https://") or runbook_of(url) in texts, f"{alert.name}: {url}"
