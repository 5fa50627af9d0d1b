"""The runbooks of all alerts as a dashboard: whoever is called at night reads them where the graphs are."""

from __future__ import annotations

import re
from pathlib import Path

from grafana_foundation_sdk.builders import text
from grafana_foundation_sdk.models import dashboard as made
from grafana_foundation_sdk.models import text as drawn

from deploy.grafana.alerts import load_alerts
from deploy.grafana.board import RUNBOOKS, Line, Row, make_dashboard, runbook_ids
from deploy.grafana.queries import ALL

DOCS = Path(__file__).parents[2] / "docs"

_LINES_A_UNIT = 2


def make() -> made.Dashboard:
    """Return the dashboard: one text a runbook, in the alerts' order, so that ``runbook_ids`` names each."""
    pages = [_page(alert.name) for alert in load_alerts()]
    rows = [Row("Runbooks", [Line([panel], height) for panel, height in pages])]
    return make_dashboard(RUNBOOKS, "What each alert means, what to look at, what to do.", ALL, rows)


def _page(alert: str) -> tuple[made.Panel, int]:
    page = (DOCS / "runbooks" / f"{alert}.md").read_text("utf-8")
    content = _linked(page.removeprefix(f"# {alert}\n").strip())
    panel = text.Panel().title(alert).mode(drawn.TextMode.MARKDOWN).content(content).build()
    return panel, 4 + page.count("\n") // _LINES_A_UNIT


def _linked(page: str) -> str:
    """Return the page with links to other runbooks as links here, and links to other pages as their names."""
    for name, panel in runbook_ids().items():
        page = page.replace(f"]({name}.md)", f"](/d/{RUNBOOKS}?viewPanel={panel})")
    return re.sub(r"\[([^\]]+)\]\(\.\./([\w./-]+)(?:#[\w-]*)?\)", r"\1 (docs/\2)", page)
