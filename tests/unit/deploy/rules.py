"""Rules and runbooks as data, and what a PromQL expression asks for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"


def rules_of(name: str) -> list[dict[str, Any]]:
    """Return the rules of a file of rules, in order."""
    content = yaml.safe_load((PROMETHEUS / "rules" / name).read_text("utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in rules_of("alerts.yml")}
RECORDED: dict[str, dict[str, Any]] = {rule["record"]: rule for rule in rules_of("recording.yml")}
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")


def blocks(path: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language in a page."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)


def selectors(expression: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the name of each metric that is asked for, with its matchers: label and value."""
    found: list[tuple[str, list[tuple[str, str]]]] = []

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name or "", [(one.name, one.value) for one in node.matchers.matchers]))

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found
