"""A ClickHouse whose answers may be waited for without a record being under suspicion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from midstream.clickhouse.client import Body, ClickHouse
from processors.attempts import Attempts


class WatchedClickHouse(ClickHouse):
    """Takes the mark of the record under work off while it waits: see :mod:`processors.attempts`."""

    def __init__(self, clickhouse: ClickHouse, attempts: Attempts) -> None:
        super().__init__(clickhouse._client, clickhouse.dsn, is_cluster=clickhouse.is_cluster)
        self._attempts = attempts

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> Sequence[tuple[Any, ...]]:
        """See :meth:`ClickHouse.rows`."""
        with self._attempts.waiting():
            return super().rows(sql, parameters)

    def insert_stream(
        self,
        table: str,
        columns: Sequence[str],
        body: Body,
        token: str,
        *,
        tries: int,
        before_try: Callable[[int], None],
    ) -> None:
        """See :meth:`ClickHouse.insert_stream`."""
        with self._attempts.waiting():
            super().insert_stream(table, columns, body, token, tries=tries, before_try=before_try)
