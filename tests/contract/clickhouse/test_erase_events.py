"""Events of an erased person on the real engine: written again, never lost or doubled, whatever fails."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.correct.overlay import TakenOverError
from midstream.erase.events import EventEraser

DAY_MS = 86_400_000
BEGIN_MS = int(datetime(2026, 1, 30, tzinfo=UTC).timestamp()) * 1000
TABLES = ("learning_events", "operational_events")
WHERE = "actor_id = 'ann-12345' OR position(raw, 'ann-12345') > 0"


def insert(clickhouse: ClickHouse, table: str, rows: list[dict[str, Any]]) -> None:
    types = {"received_at": pa.timestamp("ms", "UTC"), "event_index": pa.uint32(), "late": pa.bool_()}
    types |= {"tags": pa.list_(pa.string()), "skew_ms": pa.int64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in rows[0]])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    clickhouse.insert_stream(
        table, schema.names, sink.getvalue().to_pybytes(), uuid.uuid4().hex, tries=1, before_try=lambda _: None
    )


def event(number: int, actor: str) -> dict[str, Any]:
    return {
        "mid": f"m-{number}",
        "actor_id": actor,
        "actor_type": "User",
        "channel": "c",
        "received_at": BEGIN_MS + number * DAY_MS // 2,
        "batch_id": f"b-{number}",
        "event_index": number,
        "tags": ["x", "y"],
        "skew_ms": None,
        "late": False,
        "raw": f'{{"mid":"m-{number}","by":"{actor}"}}',
    }


@pytest.fixture
def stored(clickhouse: ClickHouse) -> ClickHouse:
    return store(clickhouse)


def store(clickhouse: ClickHouse) -> ClickHouse:
    for table in (*TABLES, "correction_rows"):
        clickhouse.command(f"TRUNCATE TABLE {table}")
    events = [event(number, "ann-12345" if number % 3 else "bob") for number in range(12)]
    events.append(event(12, "bob") | {"raw": '{"for":"ann-12345"}'})
    events.append(event(14, "bob") | {"raw": '{"kept":"ann-12345"}'})
    for place, table in enumerate(TABLES):
        insert(clickhouse, table, [one for one in events if one["event_index"] % 2 == place])
    return clickhouse


def rewrite(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, Sequence[int]]:
    changed = []
    columns = {name: rows.column(name).to_pylist() for name in ("actor_id", "raw")}
    for place, raw in enumerate(columns["raw"]):
        if "kept" not in raw:
            changed.append(place)
            columns["raw"][place] = raw.replace("ann-12345", "erased-1")
            columns["actor_id"][place] = columns["actor_id"][place].replace("ann-12345", "erased-1")
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return rows, changed


def counts(clickhouse: ClickHouse) -> tuple[Any, ...]:
    """Return what must never change, and how many events still name the person."""
    (row,) = clickhouse.rows(
        "SELECT count(), uniqExact(mid), countIf(position(raw, 'ann-12345') > 0 OR actor_id = 'ann-12345'), "
        "sum(cityHash64(mid, received_at, batch_id, event_index, tags, ifNull(skew_ms, 7), late)) FROM events"
    )
    return tuple(row)


def eraser(clickhouse: Any, **options: Any) -> EventEraser:
    return EventEraser(clickhouse, "", **{"grace_s": 0.0, **options})


def test_events_stay_under_the_pseudonym(stored: ClickHouse) -> None:
    before = counts(stored)
    assert before[:3] == (14, 14, 10)
    assert eraser(stored).erase(WHERE, rewrite, lambda: None) == 9
    wanted = {date.fromtimestamp((BEGIN_MS + n * DAY_MS // 2) / 1000) for n in (1, 2, 4, 5, 7, 8, 10, 11, 12)}
    assert set(eraser(stored).days("actor_id = 'erased-1' OR position(raw, 'erased-1') > 0")) == wanted
    assert counts(stored) == (14, 14, 1, before[3])
    rows = stored.rows("SELECT mid, raw FROM events WHERE actor_id = 'erased-1' ORDER BY received_at")
    assert [row[0] for row in rows] == [f"m-{n}" for n in (1, 2, 4, 5, 7, 8, 10, 11)]
    assert rows[0][1] == '{"mid":"m-1","by":"erased-1"}'
    assert eraser(stored).erase(WHERE, rewrite, lambda: None) == 0


def test_what_was_there_is_in_no_part_any_more(stored: ClickHouse) -> None:
    eraser(stored).erase(WHERE, rewrite, lambda: None)
    for table in TABLES:
        rows = stored.rows(
            f"SELECT count(), countIf(raw LIKE '%ann-12345%') FROM {table} SETTINGS apply_deleted_mask = 0"
        )
        assert rows == [(8 if table == TABLES[0] else 6, 1 if table == TABLES[0] else 0)]


class Failing:
    """ClickHouse that fails at one statement, before it or after it was done."""

    def __init__(self, inner: ClickHouse, at: int, after: bool) -> None:
        self._inner, self._left, self._after = inner, at, after
        self.looks: list[tuple[Any, ...]] = []
        self.failed = False
        self.rows, self.arrow = inner.rows, inner.arrow

    def command(self, sql: str, settings: dict[str, Any] | None = None) -> Any:
        return self._do(lambda: self._inner.command(sql, settings))

    def insert_stream(self, *args: Any, **kwargs: Any) -> None:
        self._do(lambda: self._inner.insert_stream(*args, **kwargs))

    def _do(self, do: Any) -> Any:
        self._left -= 1
        self.failed = self.failed or self._left == 0
        if self._left == 0 and not self._after:
            raise ClickHouseError("away", None)
        result = do()
        self.looks.append(counts(self._inner))
        if self._left == 0:
            raise ClickHouseError("away", None)
        return result


@pytest.mark.parametrize("after", [False, True])
def test_whatever_fails_each_event_is_there_once(clickhouse: ClickHouse, after: bool) -> None:
    statements = 11
    for at in range(1, statements + 2):
        assert fail(store(clickhouse), at, after) is (at <= statements)


def fail(stored: ClickHouse, at: int, after: bool) -> bool:
    """Let a statement fail, bring it to its end; return whether there was such a statement."""
    before = counts(stored)
    failing = Failing(stored, at, after)
    try:
        eraser(failing).erase(WHERE, rewrite, lambda: None)
    except ClickHouseError:
        assert failing.failed
    for look in [*failing.looks, counts(stored)]:
        assert look in (before, (14, 14, 1, before[3]))
    eraser(stored).recover()
    assert counts(stored) in (before, (14, 14, 1, before[3]))
    eraser(stored).erase(WHERE, rewrite, lambda: None)
    assert counts(stored) == (14, 14, 1, before[3])
    for table in TABLES:
        ((rows,),) = stored.rows(f"SELECT count() FROM {table}")
        assert rows == (8 if table == TABLES[0] else 6)
    assert stored.rows("SELECT count() FROM correction_rows WHERE erasing != 0") == [(0,)]
    return failing.failed


def test_many_events_go_in_passes(stored: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midstream.erase.events._MAX_PASS", 4)
    monkeypatch.setattr("midstream.erase.events._ROWS_A_QUERY", 3)
    before = counts(stored)
    assert eraser(stored).erase(WHERE, rewrite, lambda: None) == 9
    assert counts(stored) == (14, 14, 1, before[3])


def test_it_stops_between_passes(stored: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midstream.erase.events._MAX_PASS", 4)
    asked: list[bool] = []

    def check() -> None:
        asked.append(True)
        if len(asked) > 1:
            raise StopIteration

    before = counts(stored)
    with pytest.raises(StopIteration):
        eraser(stored).erase(WHERE, rewrite, check)
    assert counts(stored) == (14, 14, 6, before[3])


def test_who_wakes_up_after_another_took_over_doubles_nothing(stored: ClickHouse) -> None:
    """It stood still between reading events and writing them; the other has erased the person meanwhile."""
    before = counts(stored)

    def stand_still(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, Sequence[int]]:
        assert eraser(stored).erase(WHERE, rewrite, lambda: None) == 9
        return rewrite(rows)

    with pytest.raises(TakenOverError):
        eraser(stored).erase(WHERE, stand_still, lambda: None)
    assert counts(stored) == (14, 14, 1, before[3])


def test_there_is_time_between_what_is_shown_and_what_is_removed(stored: ClickHouse) -> None:
    looks: list[tuple[Any, ...]] = []
    eraser(stored, grace_s=2, sleep=lambda s: looks.append((s, *counts(stored)[:3]))).erase(
        WHERE, rewrite, lambda: None
    )
    assert looks == [(2, 14, 14, 10), (2, 14, 14, 1)]
