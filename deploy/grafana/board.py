"""A dashboard of rows of panels: laid out, with its variables, and linked to the others and to the runbooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as made

from deploy.grafana.alerts import load_alerts, metrics_in
from deploy.grafana.panels import SOURCE

DATASOURCE_UID = "midstream-prometheus"
"""The data source of ``provisioning/datasources``; a Grafana with others offers them all."""

OVERVIEW = "midstream-overview"
COLLECTOR = "midstream-collector"
WORKERS = "midstream-workers"
CLICKHOUSE = "midstream-clickhouse"
DEVICES = "midstream-devices"
EXHAUST = "midstream-exhaust"
RUNBOOKS = "midstream-runbooks"

TITLES = {
    OVERVIEW: "Midstream overview",
    COLLECTOR: "Midstream collector and api",
    WORKERS: "Midstream workers",
    CLICKHOUSE: "Midstream ClickHouse",
    DEVICES: "Midstream devices and learners",
    EXHAUST: "Midstream exhaust",
    RUNBOOKS: "Midstream runbooks",
}

_COLUMNS = 24
_TAG = "midstream"


@dataclass(frozen=True, slots=True)
class Line:
    """Panels side by side, of the same width."""

    panels: Sequence[made.Panel]
    height: int = 8


@dataclass(frozen=True, slots=True)
class Row:
    """A titled row of a dashboard."""

    title: str
    lines: Sequence[Line]


def link_to(uid: str) -> made.DashboardLink:
    """Return a panel's link to another dashboard, over the same time."""
    return made.DashboardLink(
        title=TITLES[uid],
        type_val=made.DashboardLinkType.LINK,
        url=f"/d/{uid}?${{__url_time_range}}&var-datasource=${{datasource}}",
    )


def runbook_ids() -> dict[str, int]:
    """Return the panel of each alert's runbook on the dashboard of runbooks, by the alert's name.

    A link shows one panel of a dashboard by its number. The first is the row's title.
    """
    return {alert.name: number for number, alert in enumerate(load_alerts(), 2)}


def more_on(uid: str, *panels: made.Panel) -> list[made.Panel]:
    """Let panels link to the dashboard that says more; return them."""
    for panel in panels:
        panel.links = [*(panel.links or []), link_to(uid)]
    return list(panels)


def make_dashboard(
    uid: str, description: str, jobs: str, rows: Sequence[Row], *, choose_job: bool = False
) -> made.Dashboard:
    """Return a dashboard over some jobs (a regular expression); with ``choose_job`` a variable ``job`` chooses of them.

    Raises:
        ValueError: panels of a line do not fill its width.
    """
    builder = (
        dashboard.Dashboard(TITLES[uid])
        .uid(uid)
        .description(description)
        .tags([_TAG])
        .timezone("utc")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(made.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(made.DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .as_dropdown(False)
            .keep_time(True)
            .include_vars(False)
        )
        .with_variable(_datasource())
    )
    chosen = jobs
    if choose_job:
        builder = builder.with_variable(_values("job", "Process", f'label_values(up{{job=~"{jobs}"}}, job)', jobs))
        chosen = "$job"
    instances = f'label_values(up{{job=~"{chosen}"}}, instance)'
    board = builder.with_variable(_values("instance", "Instance", instances, ".*")).build()
    board.panels = _lay_out(uid, rows)
    return board


def _datasource() -> dashboard.DatasourceVariable:
    default = made.VariableOption(selected=True, text="Midstream Prometheus", value=DATASOURCE_UID)
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus").current(default)


def _values(name: str, label: str, query: str, everything: str) -> dashboard.QueryVariable:
    every = made.VariableOption(selected=True, text="All", value="$__all")
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(made.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(made.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(everything)
        .current(every)
    )


def _lay_out(uid: str, rows: Sequence[Row]) -> list[made.Panel | made.RowPanel]:
    panels: list[made.Panel | made.RowPanel] = []
    y = 0
    for row in rows:
        panels.append(made.RowPanel(title=row.title, grid_pos=made.GridPos(h=1, w=_COLUMNS, x=0, y=y)))
        y += 1
        for line in row.lines:
            width, rest = divmod(_COLUMNS, len(line.panels))
            if rest:
                raise ValueError(f"{uid}, {row.title}: {len(line.panels)} panels do not fill a line")
            for number, panel in enumerate(line.panels):
                panel.grid_pos = made.GridPos(h=line.height, w=width, x=number * width, y=y)
                panel.links = [*(panel.links or []), *_runbooks(uid, panel)]
                panels.append(panel)
            y += line.height
    for number, each in enumerate(panels, 1):
        each.id_val = number
    return panels


def plain(expr: str) -> str:
    """Return a query as Prometheus takes it, with five minutes for Grafana's two durations."""
    return expr.replace("$__rate_interval", "5m").replace("$__range", "5m")


def _runbooks(uid: str, panel: made.Panel) -> list[made.DashboardLink]:
    """Return links to the runbooks of those alerts of this dashboard that look at what the panel shows."""
    shown: frozenset[str] = frozenset()
    for target in panel.targets or []:
        shown |= metrics_in(
            str(getattr(target, "expr", "")).replace("$__rate_interval", "1m").replace("$__range", "1m")
        )
    return [
        made.DashboardLink(
            title=f"Runbook: {alert.name}",
            type_val=made.DashboardLinkType.LINK,
            url=f"/d/{RUNBOOKS}?viewPanel={runbook_ids()[alert.name]}",
        )
        for alert in load_alerts()
        if alert.dashboard == uid and alert.metrics & shown
    ]
