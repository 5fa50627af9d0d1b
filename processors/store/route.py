"""Which ClickHouse table an event goes to: a table of rules, a pure function.

Few tables, by use and retention: each insert has a fixed cost of milliseconds. One kind of event is a view.
"""

from __future__ import annotations

from collections.abc import Iterable

LEARNING = "learning_events"
OPERATIONAL = "operational_events"

EVENT_TABLES: tuple[str, ...] = (LEARNING, OPERATIONAL)

RULES: dict[str, str] = {"LOG": OPERATIONAL, "ERROR": OPERATIONAL, "METRICS": OPERATIONAL}
"""By eid; every other eid, a deployment's own too, goes to :data:`DEFAULT`."""

DEFAULT = LEARNING


class RouteError(Exception):
    """A rule names a table that does not exist."""


def route(eid: str) -> str:
    """Return the table of an event."""
    return RULES.get(eid, DEFAULT)


def check_routes(existing_tables: Iterable[str]) -> None:
    """Refuse to start when a rule has no table.

    Raises:
        RouteError: naming rule and table.
    """
    existing = set(existing_tables)
    for eid, table in (*RULES.items(), ("(any other)", DEFAULT)):
        if table not in existing:
            raise RouteError(f"the route of eid {eid} leads to the table {table}, which ClickHouse does not have")
