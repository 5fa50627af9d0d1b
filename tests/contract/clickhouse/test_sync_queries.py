"""What jobs ask of objects, on the real engine: ids of any kind and number, newest rows only."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from midstream.clickhouse.client import ClickHouse
from midstream.clickhouse.portions import portions
from midstream.dimensions import Dimension, DimensionType
from serve.jobs import known as known_module
from serve.jobs.known import all_known, changes, find_known
from serve.sync.alive import alive, count_alive

USER = DimensionType.USER
ODD = ["a b", "é\"'\\", "x" * 1024, "日本", "a/b", "\t\n", "{ids}", "%"]


def put(clickhouse: ClickHouse, *rows: Dimension) -> None:
    columns: dict[str, Any] = {
        "type": [row.type.value for row in rows],
        "id": [row.id for row in rows],
        "attributes": [row.attributes for row in rows],
        "version": [row.version for row in rows],
        "deleted": [row.deleted for row in rows],
        "updated_at": pa.array([row.updated_at_ms for row in rows], pa.timestamp("ms", tz="UTC")),
    }
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    clickhouse.insert_stream("dimension_rows", table.column_names, body, "", tries=1, before_try=lambda _: None)


def row(id_: str, attributes: str = "{}", version: int = 1, *, deleted: bool = False, at_ms: int = 1_000) -> Dimension:
    return Dimension(USER, id_, attributes, version, deleted, at_ms)


def test_the_newest_row_of_each(clickhouse: ClickHouse) -> None:
    put(clickhouse, row("u1", '{"a":1}', 1), row("u2"), row("u3", '{"é":"\\u0000"}'))
    put(clickhouse, row("u1", '{"a":2}', 2), row("u2", version=2, deleted=True))
    put(clickhouse, Dimension(DimensionType.DEVICE, "u9", "{}", 1, False, 1_000))
    found = find_known(clickhouse.rows, USER, ["u1", "u2", "u3", "u9", "nobody"])
    assert {id_: (one.version, one.deleted) for id_, one in found.items()} == {
        "u1": (2, False),
        "u2": (2, True),
        "u3": (1, False),
    }
    same = [row("u1", '{"a":2}', 9), row("u2", "{}", 9, deleted=True), row("u3", '{"é":"\\u0000"}', 9)]
    assert changes(same, found, force=True).same == 3
    assert alive(clickhouse.rows, USER, ["u1", "u2", "u3", "nobody"]) == {"u1", "u3"}
    assert count_alive(clickhouse.rows, USER) == 2
    assert count_alive(clickhouse.rows, "content") == 0


def test_ids_of_any_kind(clickhouse: ClickHouse) -> None:
    put(clickhouse, *(row(id_) for id_ in ODD))
    assert alive(clickhouse.rows, USER, ODD) == set(ODD)
    assert set(find_known(clickhouse.rows, USER, ODD)) == set(ODD)
    assert {id_ for id_, _, _ in all_known(clickhouse.rows, USER, None, 2_000)} == set(ODD)
    assert {id_ for id_, _, _ in all_known(clickhouse.rows, USER, ODD, 2_000)} == set(ODD)


def test_many_ids(clickhouse: ClickHouse) -> None:
    ids = [f"user-{number:030}" for number in range(30_000)]
    put(clickhouse, *(row(id_) for id_ in ids[::2]))
    assert alive(clickhouse.rows, USER, ids) == set(ids[::2])
    assert len(find_known(clickhouse.rows, USER, ids)) == 15_000


@pytest.mark.parametrize("page", [1, 3, 4, 100])
def test_all_there_are_page_by_page(clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(known_module, "_PAGE_IDS", page)
    put(clickhouse, *(row(f"u{number}", version=number) for number in range(1, 7)))
    put(clickhouse, row("u2", version=9, deleted=True), row("u3", version=9, at_ms=2_000), row("u4", version=8))
    expected = [("u1", 1, False), ("u2", 9, True), ("u4", 8, False), ("u5", 5, False), ("u6", 6, False)]
    assert list(all_known(clickhouse.rows, USER, None, 2_000)) == expected
    assert (
        sorted(all_known(clickhouse.rows, USER, ["u6", "u4", "u3", "u2", "x"], 2_000)) == expected[1:3] + expected[4:]
    )


def test_portions_hold_all_ids_in_order() -> None:
    ids = ["x" * 1024] * 200 + ["é"] * 50_000
    found = list(portions(ids))
    assert [id_ for portion in found for id_ in portion] == ids
    assert all(len(repr(portion).encode()) <= 128 * 1024 for portion in found)
    assert list(portions([])) == []
