"""The log of downloads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest

from midstream.clickhouse.client import ClickHouseError
from midstream.settings import Settings
from serve.exhaust.log import DownloadLog, LogRow

DAY = date(2026, 1, 1)


def row(licence: str) -> LogRow:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    return LogRow(at, licence, "D001", "r", DAY, DAY, "jsonl", [], [], "archive", "GET", 200, 0, 1, True, 0.1, "")


class Engine:
    """Takes inserts by their token; the first answers are lost."""

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.tokens: list[str] = []
        self.stored: dict[str, bytes] = {}

    def connected(self) -> Engine:
        return self

    def insert_stream(self, table: str, columns: Sequence[str], body: bytes, token: str, **_: Any) -> None:
        self.tokens.append(token)
        self.stored.setdefault(token, body)
        if len(self.tokens) <= self.lost:
            raise ClickHouseError("no answer", None)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("lost", [0, 1])
async def test_rows_whose_answer_was_lost_are_there_once(lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    engine = Engine(lost)
    log = DownloadLog(Settings())
    monkeypatch.setattr(log, "_client", engine)
    log.note(row("a"))
    await log._write()
    log.note(row("b"))
    await log.close()
    names = [
        name
        for body in engine.stored.values()
        for name in pa.ipc.open_stream(body).read_all().column("licence").to_pylist()
    ]
    assert names == ["a", "b"]
    assert len(engine.tokens) == 2 + lost
    assert len(set(engine.tokens)) == 2
