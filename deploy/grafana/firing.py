"""The table of alerts that fire, each with links to the dashboard of its cause and to its runbook."""

from __future__ import annotations

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import dashboard as made
from grafana_foundation_sdk.models import prometheus

from deploy.grafana.alerts import load_alerts
from deploy.grafana.board import RUNBOOKS, TITLES, runbook_ids
from deploy.grafana.panels import RED, SOURCE, Words, query
from deploy.grafana.queries import or_zero

_WORDS = Words(
    "Alerts that fire now, the gravest first.",
    'One row, "none".',
    "Click the dashboard to see the cause, and open the runbook to read what to do.",
)


def firing_alerts() -> made.Panel:
    """Return the table. Prometheus shows of a firing alert its labels only, so that the query adds the dashboard."""
    panel = (
        table.Panel()
        .title("Firing alerts")
        .description(str(_WORDS))
        .unit("short")
        .datasource(SOURCE)
        .show_header(True)
        .no_value("No alert fires")
        .with_target(query(_expr(), "", instant=True).format(prometheus.PromQueryFormat.TABLE).ref_id("A"))
        .with_transformation(made.DataTransformerConfig(id_val="organize", options=_columns()))
        .override_by_name("Dashboard", [_TITLES, _link("Open the dashboard", _DASHBOARD_URL)])
        .override_by_name("Runbook", [_OPEN, _link("Open the runbook", _RUNBOOK_URL)])
        .override_by_name("Severity", [_COLOURED, _PAGES_ARE_RED])
    )
    return panel.build()


_DASHBOARD_URL = "/d/${__value.raw}?${__url_time_range}&var-datasource=${datasource}"
_RUNBOOK_URL = f"/d/{RUNBOOKS}?viewPanel=${{__value.raw}}"
_TITLES = made.DynamicConfigValue(
    "mappings", [{"type": "value", "options": {uid: {"text": title} for uid, title in TITLES.items()}}]
)
_OPEN = made.DynamicConfigValue(
    "mappings", [{"type": "regex", "options": {"pattern": ".+", "result": {"text": "open"}}}]
)
_COLOURED = made.DynamicConfigValue("custom.cellOptions", {"type": "color-text"})
_PAGES_ARE_RED = made.DynamicConfigValue(
    "mappings", [{"type": "value", "options": {"page": {"color": RED, "index": 0, "text": "page"}}}]
)


def _expr() -> str:
    """Return the firing alerts with labels: the dashboard of the rule's annotation, and the runbook's panel."""
    alerts = load_alerts()
    firing = 'ALERTS{alertname=~"Midstream.+",alertstate="firing"}'
    for uid in sorted({alert.dashboard for alert in alerts}):
        names = "|".join(alert.name for alert in alerts if alert.dashboard == uid)
        firing = f'label_replace({firing}, "dashboard", "{uid}", "alertname", "{names}")'
    for name, panel in runbook_ids().items():
        firing = f'label_replace({firing}, "runbook", "{panel}", "alertname", "{name}")'
    return or_zero(firing, "alertname", "severity")


def _link(title: str, url: str) -> made.DynamicConfigValue:
    return made.DynamicConfigValue("links", [{"title": title, "url": url}])


def _columns() -> dict[str, object]:
    hidden = ("Time", "Value", "__name__", "alertstate")
    order = ("severity", "alertname", "dashboard", "runbook", "job", "instance")
    names = {name: name.capitalize() for name in order} | {"alertname": "Alert"}
    return {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {name: index for index, name in enumerate(order)},
        "renameByName": names,
    }
