"""Learners' records in ClickHouse: what the queries and the views make of writes, in any order and however often."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from midstream.assignments.fields import Value
from midstream.assignments.indicators import StepFacts
from midstream.assignments.record import Version, fold
from midstream.assignments.rows import TABLE, PlacedWrite, RecordKey, Write, rows_of
from midstream.assignments.stored import RecordReader, count_records, read_page, read_report, read_written
from midstream.clickhouse.client import ClickHouse

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = RecordKey(1, "intro", 2)


def placed(
    version: int,
    given: Mapping[str, Value],
    computed: Mapping[str, Value] | None = None,
    *,
    key: RecordKey = KEY,
    steps: Sequence[StepFacts] = (),
) -> PlacedWrite:
    write = Write(key, 9, given, computed or {}, steps)
    return PlacedWrite(write, 7, version, NOW + timedelta(microseconds=version), NOW)


def put(clickhouse: ClickHouse, writes: Sequence[PlacedWrite], writer: str = "w", batch: int = 1) -> None:
    rows = rows_of(writes, writer, batch)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_batch(rows)
    body = sink.getvalue().to_pybytes()
    clickhouse.insert_stream(TABLE, rows.schema.names, body, "", tries=1, before_try=lambda _: None)


def version_of(one: PlacedWrite) -> Version:
    write = one.write
    return Version(
        one.version,
        one.written_at,
        frozenset(write.given),
        frozenset(write.computed),
        {**write.given, **write.computed},
    )


WRITES = [
    placed(1, {"telemetry": b'{"a":1}', "engagement_score": 90.5}),
    placed(2, {}),
    placed(3, {"engagement_score": None, "completion_rate": 50.0}),
    placed(
        4, {"telemetry": b'{"a":"\\u00e9\\n\'"}'}, {"engagement_score": 11.0, "completion_rate": 99.0, "metrics": b"{}"}
    ),
    placed(5, {"metrics": b'{"own": true}', "total_time": 93_784_500_000}),
    placed(6, {"telemetry": b"{}"}, {"engagement_score": 12.5, "metrics": b'{"n":6}', "metrics_algo_version": 1.0}),
    placed(7, {"frustration_score": 0.0}),
]


@pytest.mark.parametrize("seed", range(5))
def test_a_record_is_what_its_writes_fold_to_in_any_order(clickhouse: ClickHouse, seed: int) -> None:
    choice = random.Random(seed)
    order = [*WRITES, *choice.sample(WRITES, 3)]
    choice.shuffle(order)
    while order:
        put(clickhouse, [order.pop() for _ in range(min(len(order), choice.randint(1, 3)))])
    other = placed(1, {"engagement_score": 1.0}, key=RecordKey(1, "intro", 3))
    put(clickhouse, [other])
    found = RecordReader(clickhouse.rows).read([KEY, other.write.key, RecordKey(1, "intro", 4)])
    assert set(found) == {KEY, other.write.key}
    expected = fold([version_of(one) for one in WRITES])
    assert fold(found[KEY]) == expected
    assert expected.values["engagement_score"] == 12.5
    assert expected.values["completion_rate"] == 50.0
    (row,) = clickhouse.named_rows("SELECT * FROM assignment_telemetry WHERE user_id = 2")
    for name, value in expected.values.items():
        shown = value.decode() if isinstance(value, bytes) else value
        assert row[name] == ("1 02:03:04.500000" if name == "total_time" else shown), name
    assert row["total_time_s"] == 93_784.5
    assert (row["academy_id"], row["asset_slug"], row["id"]) == (1, "intro", 7)
    assert row["created_at"].replace(tzinfo=UTC) == NOW
    assert row["updated_at"].replace(tzinfo=UTC) == NOW + timedelta(microseconds=7)


def test_every_write_is_a_row_of_the_history_once(clickhouse: ClickHouse) -> None:
    put(clickhouse, WRITES)
    put(clickhouse, WRITES[2:4])
    rows = clickhouse.named_rows("SELECT * FROM assignment_telemetry_history ORDER BY version")
    assert [row["version"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert rows[0]["fields"] == ["telemetry", "engagement_score"]
    assert rows[1]["fields"] == []
    assert (rows[3]["fields"], rows[3]["computed_fields"]) == (
        ["telemetry"],
        ["metrics", "engagement_score", "completion_rate"],
    )
    assert rows[3]["telemetry"] == '{"a":"\\u00e9\\n\'"}'
    assert (rows[4]["total_time_s"], rows[4]["author"]) == (93_784.5, 9)


@pytest.mark.parametrize("slug", ["a/b", "é" * 1000, 'it\'s \\ "quoted"\n\t', "{x:String}", "💥"])
def test_a_slug_may_be_anything(clickhouse: ClickHouse, slug: str) -> None:
    key = RecordKey(2**63 - 1, slug, 1)
    put(clickhouse, [placed(1, {"completion_rate": 5.0}, key=key)])
    assert fold(RecordReader(clickhouse.rows).read([key])[key]).values["completion_rate"] == 5.0
    (record,) = read_page(clickhouse.rows, key.academy_id, slug, sort="user", descending=False, limit=10, offset=0)
    assert record["completion_rate"] == 5.0
    assert count_records(clickhouse.rows, key.academy_id, slug) == 1


def test_a_large_telemetry_comes_back_whole(clickhouse: ClickHouse) -> None:
    text = b'{"x":"' + b"y" * 1_048_000 + b'"}'
    put(clickhouse, [placed(number, {"telemetry": text[:-2] + str(number).encode() + b'"}'}) for number in range(1, 6)])
    assert fold(RecordReader(clickhouse.rows).read([KEY])[KEY]).values["telemetry"] == text[:-2] + b'5"}'


def test_a_record_of_many_writes_is_the_same(clickhouse: ClickHouse) -> None:
    writes = [*WRITES]
    for number in range(8, 60):
        given: dict[str, Value] = {"telemetry": b'{"n":%d}' % number} if number % 3 else {"total_time": number}
        writes.append(placed(number, given, {"completion_rate": 1.0} if number % 5 == 0 else {}))
    put(clickhouse, writes)
    put(clickhouse, writes[20:30])
    short = [RecordKey(1, "other" * 200, user) for user in range(120)]
    put(clickhouse, [placed(1, {"completion_rate": float(key.user_id % 100)}, key=key) for key in short])
    reader = RecordReader(clickhouse.rows)
    expected = fold([version_of(one) for one in writes])
    for _ in range(2):
        found = reader.read([KEY, *short])
        assert fold(found[KEY]) == expected
        assert len(found[KEY]) < 16
        assert [fold(found[key]).values["completion_rate"] for key in short] == [key.user_id % 100 for key in short]


def test_a_page_is_sorted_and_records_without_the_value_come_last(clickhouse: ClickHouse) -> None:
    scores = {1: 30.0, 2: None, 3: 10.0, 4: 20.0}
    put(
        clickhouse,
        [placed(1, {"engagement_score": score}, key=RecordKey(1, "a", user)) for user, score in scores.items()],
    )
    put(clickhouse, [placed(1, {}, key=RecordKey(1, "b", 1)), placed(1, {}, key=RecordKey(2, "a", 1))])

    def users(sort: str, descending: bool, limit: int = 10, offset: int = 0) -> list[int]:
        found = read_page(clickhouse.rows, 1, "a", sort=sort, descending=descending, limit=limit, offset=offset)
        return [one["user_id"] for one in found]

    assert users("engagement_score", False) == [3, 4, 1, 2]
    assert users("engagement_score", True) == [1, 4, 3, 2]
    assert users("user", True, limit=2, offset=1) == [3, 2]
    assert count_records(clickhouse.rows, 1, "a") == 4


def step(slug: str, position: int, *, opened: bool = True, completed: bool = False, failed: int = 0) -> StepFacts:
    return StepFacts(
        slug=slug,
        position=position,
        opened=opened,
        completed=completed,
        skipped=not opened,
        compilation_struggles=failed,
        test_struggles=2 * failed,
        seconds=10.0 * position,
    )


def test_a_report_says_how_learners_do_and_where_they_get_stuck(clickhouse: ClickHouse) -> None:
    def learner(user: int, rate: float | None, *steps: StepFacts) -> None:
        key = RecordKey(1, "a", user)
        old = placed(1, {"telemetry": b"{}"}, key=key, steps=[step("gone", 9)])
        new = placed(2, {"telemetry": b"{}", "completion_rate": rate}, key=key, steps=steps)
        put(clickhouse, [new, old])

    learner(1, 100.0, step("s1", 1, completed=True), step("s2", 2, completed=True, failed=1))
    learner(2, 50.0, step("s1", 1, completed=True), step("s2", 2, failed=4))
    learner(3, None, step("s1", 1, opened=False), step("s2", 2, failed=1))
    put(clickhouse, [placed(1, {"completion_rate": 1.0}, key=RecordKey(1, "b", 1))])
    put(clickhouse, [placed(1, {"completion_rate": 1.0}, key=RecordKey(2, "c", 1))])

    a, b = read_report(clickhouse.rows, 1, limit=10)
    assert (a.asset_slug, a.learners, a.completed, a.completion_rate, a.engagement_score) == ("a", 3, 1, 75.0, None)
    first, second = a.steps
    assert (first.slug, first.opened, first.completed, first.stuck, first.skipped) == ("s1", 2, 2, 0, 1)
    assert (second.slug, second.opened, second.completed, second.stuck, second.skipped) == ("s2", 3, 1, 2, 0)
    assert (second.compilation_struggles, second.test_struggles, second.seconds) == (2.0, 4.0, 20.0)
    assert (b.asset_slug, b.learners, list(b.steps)) == ("b", 1, [])
    assert [one.asset_slug for one in read_report(clickhouse.rows, 1, after="a", limit=10)] == ["b"]
    assert [one.asset_slug for one in read_report(clickhouse.rows, 1, asset_slug="a", limit=10)] == ["a"]
    assert read_report(clickhouse.rows, 3, limit=10) == []


def test_a_step_that_nobody_opened_has_no_means(clickhouse: ClickHouse) -> None:
    put(clickhouse, [placed(1, {"telemetry": b"{}"}, steps=[step("s1", 1, opened=False)])])
    ((only,),) = [one.steps for one in read_report(clickhouse.rows, 1, limit=10)]
    assert (only.opened, only.compilation_struggles, only.test_struggles, only.seconds) == (0, None, None, None)


def test_what_a_life_wrote_is_read_insert_by_insert(clickhouse: ClickHouse) -> None:
    for batch, writes in [(1, WRITES[:2]), (4, WRITES[2:4]), (5, WRITES[4:])]:
        put(clickhouse, writes, "mine", batch)
        put(clickhouse, [placed(1, {}, key=RecordKey(5, "x", batch))], "other", batch)
    first = read_written(clickhouse.rows, "mine", after=0, inserts=2)
    assert [batch for batch, _ in first] == [1, 1, 4, 4]
    assert [one for _, one in first] == WRITES[:4]
    assert [one for _, one in read_written(clickhouse.rows, "mine", after=4, inserts=2)] == WRITES[4:]
    assert read_written(clickhouse.rows, "mine", after=5, inserts=2) == []
