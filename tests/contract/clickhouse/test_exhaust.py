"""Which events are a resource's, asked of the real engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midstream.clickhouse.client import ClickHouse
from midstream.exhaust.dataset import (
    COLUMNS,
    D001,
    FILTER_COLUMNS,
    RESOURCE_COLUMNS,
    TAGS,
    Condition,
    Dataset,
    condition_sql,
    read_declaration,
    resource_key,
)

HASH = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
HEAD = HASH[:32]
OTHER_TAIL = HEAD + "ffffffff"
OTHER = "f" + HASH[1:]


def store(clickhouse: ClickHouse, table: str = "learning_events", **values: Any) -> None:
    """Write one event; its mid is given, all else is empty unless given."""
    row = {"received_at": "2026-01-01 10:00:00.000", **values}
    clickhouse.command(f"INSERT INTO {table} FORMAT JSONEachRow {json.dumps(row)}")


def mids(clickhouse: ClickHouse, dataset: Dataset, resource: str) -> list[str]:
    key = resource_key(dataset, resource)
    assert key is not None
    condition, parameters = condition_sql(dataset, key)
    return [
        str(mid) for (mid,) in clickhouse.rows(f"SELECT mid FROM events WHERE {condition} ORDER BY mid", parameters)
    ]


def test_tags(clickhouse: ClickHouse) -> None:
    for mid, tags in {
        "40": [HASH],
        "40 upper": ["partner", HASH.upper()],
        "40 mixed": [HASH[:20] + HASH[20:].upper(), "x"],
        "32": [HEAD],
        "32 upper": [HEAD.upper()],
        "other tail": [OTHER_TAIL],
        "both tails": [OTHER_TAIL, HASH],
        "other": [OTHER, OTHER[:32]],
        "none": [],
        "41": [HASH + "0"],
        "39": [HASH[:39]],
        "33": [HASH[:33]],
        "31": [HASH[:31]],
        "no hex": [HEAD + "01234_67", HEAD + "ü67890"],
        "line": [HASH + "\n", HEAD + "\n", "\n" + HASH, HEAD + "\n1234567"],
        "blank": [f" {HASH}", f"{HASH} "],
        "in another": [f"partner:{HASH}"],
    }.items():
        store(clickhouse, mid=mid, tags=tags)
    store(clickhouse, "operational_events", mid="log", tags=[HASH])
    by_40 = ["32", "32 upper", "40", "40 mixed", "40 upper", "both tails", "log"]
    assert mids(clickhouse, D001, HASH) == by_40
    assert mids(clickhouse, D001, HASH.upper()) == by_40
    assert mids(clickhouse, D001, OTHER_TAIL) == ["32", "32 upper", "both tails", "other tail"]
    by_32 = sorted([*by_40, "other tail"])
    assert mids(clickhouse, D001, HEAD) == by_32
    assert mids(clickhouse, D001, HEAD.upper()) == by_32
    assert mids(clickhouse, D001, OTHER) == mids(clickhouse, D001, OTHER[:32]) == ["other"]
    assert mids(clickhouse, D001, "0" * 40) == mids(clickhouse, D001, "0" * 32) == []


@pytest.mark.parametrize("column", RESOURCE_COLUMNS)
def test_column(clickhouse: ClickHouse, column: str) -> None:
    dataset = Dataset("D", column)
    for number, value in enumerate(("a", "A", "a1", "", "a.b:c@d+e=f~g-h_i")):
        store(clickhouse, mid=str(number), **{column: value})
    assert mids(clickhouse, dataset, "a") == ["0"]
    assert mids(clickhouse, dataset, "A") == ["1"]
    assert mids(clickhouse, dataset, "a.b:c@d+e=f~g-h_i") == ["4"]
    assert mids(clickhouse, dataset, "b") == []


@pytest.mark.parametrize("column", [one for one in FILTER_COLUMNS if one not in ("tags", "mid", "channel")])
def test_filter(clickhouse: ClickHouse, column: str) -> None:
    for number, value in enumerate(("x", "y", "z", "")):
        store(clickhouse, mid=str(number), channel="c", **{column: value})
    store(clickhouse, mid="elsewhere", channel="d", **{column: "x"})

    def found(*conditions: Condition) -> list[str]:
        return mids(clickhouse, Dataset("D", "channel", conditions), "c")

    assert found(Condition(column, "in", ("x",))) == ["0"]
    assert found(Condition(column, "in", ("x", "z", "absent"))) == ["0", "2"]
    assert found(Condition(column, "in", ("",))) == ["3"]
    assert found(Condition(column, "not_in", ("x",))) == ["1", "2", "3"]
    assert found(Condition(column, "not_in", ("x", ""))) == ["1", "2"]
    assert found(Condition(column, "in", ("x", "y")), Condition(column, "not_in", ("y",))) == ["0"]
    assert found(Condition(column, "in", ("X",))) == []


def test_filter_by_tags_beside_the_rule(clickhouse: ClickHouse) -> None:
    store(clickhouse, mid="0", tags=[HASH, "gold"])
    store(clickhouse, mid="1", tags=[HASH, "silver"])
    store(clickhouse, mid="2", tags=["gold"])
    store(clickhouse, mid="3", tags=[HASH])
    assert mids(clickhouse, Dataset("D", TAGS, (Condition("tags", "in", ("gold", "tin")),)), HASH) == ["0"]
    assert mids(clickhouse, Dataset("D", TAGS, (Condition("tags", "not_in", ("gold", "tin")),)), HASH) == ["1", "3"]


TRICKY = [
    "'", "''", "\\", "\\'", "\\n", '"', "`", "{resource:String}", "%s", "%(a)s", "a b", "]", "','", "--", "NULL", "\\N",
    "1", "true", "Ünïcödé", "日本語", "😀", "?", "&", "#", "+", "%41", ";", "/*", "*/",
]  # fmt: skip


def test_values_are_never_sql(clickhouse: ClickHouse) -> None:
    for number, value in enumerate(TRICKY):
        store(clickhouse, mid=f"{number:02}", channel="c", env=value, tags=[value])
    for number, value in enumerate(TRICKY):
        for column in ("env", "tags"):
            wanted = Dataset("D", "channel", (Condition(column, "in", (value,)),))
            assert mids(clickhouse, wanted, "c") == [f"{number:02}"], value
    everything = Dataset("D", "channel", (Condition("env", "not_in", tuple(TRICKY)),))
    assert mids(clickhouse, everything, "c") == []


def test_the_largest_filter_that_can_be(clickhouse: ClickHouse) -> None:
    conditions = [
        {"column": "env", "in": ["e", *("日" * 85 for _ in range(15))]},
        *({"column": "did", "not_in": [f"{row}{number:02}" for number in range(1)]} for row in range(15)),
    ]
    dataset = read_declaration({"name": "D", "resource": "channel", "filter": conditions})
    assert len(dataset.filter) == 16
    store(clickhouse, mid="0", channel="c", env="e")
    assert mids(clickhouse, dataset, "c") == ["0"]
    quotes = read_declaration(
        {"name": "D", "resource": "channel", "filter": [{"column": "env", "in": ["e", *["'\\" * 8] * 255]}]}
    )
    assert mids(clickhouse, quotes, "c") == ["0"]


def test_every_column_that_can_be_declared_is_there_and_is_not_denormalised(clickhouse: ClickHouse) -> None:
    there = {str(row[0]) for row in clickhouse.rows("DESCRIBE TABLE events")}
    assert set(COLUMNS) <= there
    assert set(FILTER_COLUMNS) <= there
    assert not {*COLUMNS, *FILTER_COLUMNS} & {"user", "device", "content", "location", "flags", "stored_at"}
