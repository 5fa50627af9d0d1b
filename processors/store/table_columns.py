"""Which columns the event tables have: migrations come before whatever writes a new column, and this sees to it."""

from __future__ import annotations

from collections.abc import Iterable

from midstream.clickhouse.client import ClickHouse, ClickHouseError
from processors.store.route import EVENT_TABLES

_NO_SUCH_COLUMN = 16  # ClickHouse's src/Common/ErrorCodes.cpp


class TableColumns:
    """Columns that all event tables have, asked for when one is met for the first time."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self._known: frozenset[str] = frozenset()
        """As many as the tables have: nothing else comes in."""

    def check(self, names: Iterable[str]) -> None:
        """Return if all event tables have these columns.

        Raises:
            ClickHouseError: one has not, or ClickHouse does not answer. It says nothing about the rows: they can be
                stored when the tables have been migrated.
        """
        wanted = set(names)
        if wanted <= self._known:
            return
        sql = "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}"
        found = [{row[0] for row in self._clickhouse.rows(sql, {"table": table})} for table in EVENT_TABLES]
        self._known = frozenset(set.intersection(*found))
        if missing := sorted(wanted - self._known):
            raise ClickHouseError(
                f"the tables {', '.join(EVENT_TABLES)} have no column {', '.join(missing)}: run `midstream migrate` of "
                "the newest version that runs here",
                _NO_SUCH_COLUMN,
            )
