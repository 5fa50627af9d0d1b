"""What the rules in ``deploy/prometheus`` say of alerts: by it panels link to runbooks, and alerts to dashboards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import yaml

RULES = Path(__file__).parents[1] / "prometheus" / "rules"


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert, and the metrics that it looks at: those of the recording rules in its expression too."""

    name: str
    dashboard: str
    runbook_url: str
    metrics: frozenset[str]


def metrics_in(expr: str) -> frozenset[str]:
    """Return the names that a query shows, and those behind the recorded series among them.

    What only keeps it quiet, behind ``unless``, is left out.

    Raises:
        ValueError: it is no PromQL.
    """
    shown = _selected(promql_parser.transform(promql_parser.parse(expr), _without_exceptions))
    behind = (metrics_in(_recorded()[name]) for name in shown if name in _recorded())
    return shown.union(*behind)


@cache
def load_alerts() -> tuple[Alert, ...]:
    """Return all alerts, by name."""
    alerts = [
        Alert(
            rule["alert"],
            rule["annotations"]["dashboard"],
            rule["annotations"]["runbook_url"],
            metrics_in(rule["expr"]),
        )
        for rule in _rules()
        if "alert" in rule
    ]
    return tuple(sorted(alerts, key=lambda alert: alert.name))


def _selected(tree: promql_parser.Expr) -> frozenset[str]:
    names = set()

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            names.add(node.name)

    promql_parser.walk(tree, visit)
    return frozenset(names)


def _without_exceptions(node: promql_parser.Expr) -> promql_parser.Expr | None:
    if isinstance(node, promql_parser.BinaryExpr) and str(node.op) == "unless":
        return promql_parser.transform(node.lhs, _without_exceptions)
    return None


@cache
def _recorded() -> dict[str, str]:
    return {rule["record"]: rule["expr"] for rule in _rules() if "record" in rule}


@cache
def _rules() -> tuple[dict[str, Any], ...]:
    files = (yaml.safe_load(path.read_text("utf-8")) for path in sorted(RULES.glob("*.yml")))
    return tuple(rule for file in files for group in file["groups"] for rule in group["rules"])
