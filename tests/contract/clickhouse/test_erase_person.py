"""A person erased from every table, on the real engine."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from midstream.clickhouse.client import ClickHouse
from midstream.dimensions import DimensionType
from midstream.erase.person import PersonEraser
from midstream.erased import ErasedKey, pseudonym
from tests.contract.clickhouse.test_erase_events import insert as insert_texts

USER = DimensionType.USER
KEY = ErasedKey(b"k" * 32)
AT_MS = int(datetime(2026, 3, 4, 5, tzinfo=UTC).timestamp() * 1000)
DAY_MS = 86_400_000
LONG = 'ann/"o\'Neill"-1234567'
COUNTS = (
    "SELECT count(), uniqExact(mid), sum(cityHash64(mid, received_at, batch_id, event_index, content_hash)) FROM events"
)


class Datasets:
    """Notes what is built anew."""

    def __init__(self) -> None:
        self.built: list[tuple[date, date]] = []

    def rebuild(self, first_day: date, last_day: date, reason: str) -> int:
        assert "erased" in reason
        self.built.append((first_day, last_day))
        return 1


class Learners:
    """Notes who was removed."""

    def __init__(self) -> None:
        self.erased: list[int] = []

    def erase(self, user_id: int) -> int:
        self.erased.append(user_id)
        return 3


def event_text(number: int, id_: str, **more: Any) -> str:
    actor = {"id": id_, "type": "User"}
    return json.dumps({"eid": "LOG", "mid": f"m-{number}", "ets": 1.50, "actor": actor, **more}, ensure_ascii=False)


def store_event(clickhouse: ClickHouse, table: str, number: int, id_: str, **columns: Any) -> None:
    row = {
        "mid": f"m-{number}",
        "actor_id": id_,
        "actor_type": "User",
        "object_id": "",
        "object_type": "",
        "cdata": "",
        "did": "d-1",
        "channel": "c",
        "user": '{"state":"Goa"}',
        "device": '{"ipLocation":{"state":"Kerala"}}',
        "location": '{"state":"Goa","district":"","from":"user-profile"}',
        "flags": '{"user":"found","device":"found"}',
        "received_at": AT_MS + number * DAY_MS,
        "batch_id": f"b-{number}",
        "event_index": number,
        "raw": event_text(number, id_),
    } | columns
    insert_texts(clickhouse, table, [row])


def insert(clickhouse: ClickHouse, table: str, **values: Any) -> None:
    names = ", ".join(values)
    texts = ", ".join(f"{{{name}:{kind}}}" for name, (kind, _) in values.items())
    clickhouse.rows(
        f"INSERT INTO {table} ({names}) SELECT {texts}", {name: value for name, (_, value) in values.items()}
    )


def insert_reject(clickhouse: ClickHouse, index: int, raw: bytes, message: str = "m") -> None:
    types = {"received_at": pa.timestamp("ms", "UTC"), "event_index": pa.int32(), "raw": pa.binary()}
    row = {"mid": "", "eid": "", "did": "d", "channel": "c", "batch_id": "b", "event_index": index}
    row |= {
        "received_at": AT_MS,
        "code": "INVALID_JSON",
        "pointer": "",
        "message": message,
        "raw": raw,
        "scope": "event",
    }
    schema = pa.schema([(name, types.get(name, pa.string())) for name in row])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist([row], schema=schema))
    clickhouse.insert_stream(
        "reject_rows", schema.names, sink.getvalue().to_pybytes(), f"r{index}", tries=1, before_try=lambda _: None
    )


def erase(clickhouse: ClickHouse, id_: str) -> tuple[Any, Datasets, Learners]:
    datasets, learners = Datasets(), Learners()
    clock = iter(range(0, 10_000, 10))
    eraser = PersonEraser(clickhouse, "", datasets, learners, sleep=lambda _: None, clock=lambda: float(next(clock)))
    done = eraser.erase(USER, id_, KEY.digest(USER, id_), lambda step, at, of: None, lambda: None)
    return done, datasets, learners


def name_of(id_: str) -> str:
    return pseudonym(KEY.digest(USER, id_))


def test_a_long_id_is_found_wherever_it_stands(clickhouse: ClickHouse) -> None:
    store_event(clickhouse, "learning_events", 1, LONG)
    store_event(clickhouse, "operational_events", 2, LONG, actor_type="System")
    store_event(
        clickhouse, "learning_events", 4, "bob", raw=event_text(4, "bob", edata={"of": f"user:{LONG}!", "n": 1.0})
    )
    store_event(clickhouse, "learning_events", 5, "bob")
    insert_reject(clickhouse, 0, event_text(9, LONG).encode() + b" \xff")
    insert_reject(clickhouse, 1, b"\xff\xfe", message=f"no such user {LONG!r}")
    insert_reject(clickhouse, 2, event_text(9, "bob").encode())
    insert(
        clickhouse,
        "dimension_rows",
        type=("String", "user"),
        id=("String", LONG),
        attributes=("String", "{}"),
        version=("Int64", 1),
    )
    insert(
        clickhouse,
        "dimension_rows",
        type=("String", "user_course"),
        id=("String", f"c-1:{LONG}"),
        attributes=("String", "{}"),
        version=("Int64", 1),
    )
    insert(
        clickhouse,
        "dimension_rows",
        type=("String", "content"),
        id=("String", "do_1"),
        attributes=("String", json.dumps({"by": LONG})),
        version=("Int64", 1),
    )
    insert(
        clickhouse,
        "device_rows",
        device_id=("String", "dev-1"),
        kind=("String", "value"),
        key=("String", "who"),
        at=("DateTime64(6, 'UTC')", datetime(2026, 1, 1, tzinfo=UTC)),
        digest=("FixedString(32)", "x" * 32),
        value=("String", json.dumps(LONG)),
        received_at=("DateTime64(6, 'UTC')", datetime(2026, 1, 1, tzinfo=UTC)),
    )
    insert(
        clickhouse,
        "batch_rows",
        batch_id=("String", "b-1"),
        user=("String", LONG),
        received_at=("DateTime64(3, 'UTC')", datetime(2026, 3, 4, tzinfo=UTC)),
    )
    before = clickhouse.rows(COUNTS)
    done, datasets, learners = erase(clickhouse, LONG)
    name = name_of(LONG)
    assert clickhouse.rows(COUNTS) == before
    assert dict(done.changed) == {
        "dimensions": 2,
        "events": 3,
        "rejects": 2,
        "batches": 1,
        "device_history": 1,
        "assignment_telemetry": 0,
        "duplicates": 0,
    }
    rows = clickhouse.rows("SELECT actor_id, user, flags, location, raw FROM events ORDER BY received_at")
    assert rows[0][:4] == (
        name,
        "",
        '{"user":"missing","device":"found"}',
        '{"state":"Kerala","district":"","from":"ip-resolved"}',
    )
    assert json.loads(rows[0][4])["actor"]["id"] == name
    assert '"ets": 1.5,' in rows[0][4]
    assert json.loads(rows[2][4])["edata"] == {"of": f"user:{name}!", "n": 1.0}
    assert rows[2][1] == '{"state":"Goa"}'
    assert rows[3][4] == event_text(5, "bob")
    rejects = clickhouse.rows("SELECT hex(raw), message FROM rejects ORDER BY event_index")
    assert [bytes.fromhex(raw) for raw, _ in rejects] == [
        event_text(9, LONG).replace(json.dumps(LONG), f'"{name}"').encode() + b" \xff",
        b"\xff\xfe",
        event_text(9, "bob").encode(),
    ]
    assert rejects[1][1] == f"no such user '{name}'"
    assert clickhouse.rows("SELECT type, id FROM dimension_rows") == [("content", "do_1")]
    assert clickhouse.rows("SELECT value FROM device_state") == [(json.dumps(name),)]
    assert clickhouse.rows("SELECT user FROM batches") == [(name,)]
    assert datasets.built == [(date(2026, 3, 5), date(2026, 3, 6)), (date(2026, 3, 8), date(2026, 3, 8))]
    assert learners.erased == []
    report = done.report
    assert report["pseudonym"] == name
    assert report["still_naming"] == {"dimensions": 1}
    assert "attributes of 1 other objects" in [left["where"] for left in report["left_to_time"]]
    assert "Kafka topic telemetry.raw" in [left["where"] for left in report["left_to_time"]]
    assert LONG not in json.dumps(report, ensure_ascii=False)
    again, datasets, _ = erase(clickhouse, LONG)
    assert not any(again.changed.values())
    assert len(datasets.built) == 2  # once more, in case the first was broken off before


@pytest.mark.parametrize("table", ["reject_rows", "batch_rows", "device_rows", "device_latest_rows", "learning_events"])
def test_nothing_of_it_is_left_in_the_parts(clickhouse: ClickHouse, table: str) -> None:
    test_a_long_id_is_found_wherever_it_stands(clickhouse)
    columns = clickhouse.rows(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String} "
        "AND type = 'String'",
        {"table": table},
    )
    inner = json.dumps(LONG)[1:-1]
    for (column,) in columns:
        for text in (LONG, inner):
            rows = clickhouse.rows(
                f"SELECT count() FROM {table} WHERE position({column}, {{text:String}}) > 0", {"text": text}
            )
            assert rows == [(0,)], column


def test_a_short_id_is_replaced_where_it_is_a_user(clickhouse: ClickHouse) -> None:
    store_event(
        clickhouse, "learning_events", 1, "7", raw=event_text(1, "7", edata={"level": "7"}), edata='{"level":"7"}'
    )
    seen_by = {"object": {"id": "7", "type": "User"}}
    store_event(
        clickhouse, "learning_events", 2, "bob", object_id="7", object_type="User", raw=event_text(2, "bob", **seen_by)
    )
    store_event(
        clickhouse,
        "learning_events",
        3,
        "bob",
        object_id="7",
        object_type="Content",
        raw=event_text(3, "bob", object={"id": "7"}),
    )
    cdata = [{"type": "User", "id": "7"}, {"type": "Batch", "id": "7"}]
    store_event(
        clickhouse,
        "learning_events",
        4,
        "bob",
        cdata=json.dumps(cdata),
        raw=event_text(4, "bob", context={"cdata": cdata}),
    )
    for author, user in ((1, 7), (7, 8), (2, 9)):
        insert(
            clickhouse,
            "assignment_rows",
            academy_id=("Int64", 1),
            asset_slug=("String", "a"),
            user_id=("Int64", user),
            version=("Int64", 1),
            author=("Int64", author),
            writer=("String", "w"),
        )
    before = clickhouse.rows(COUNTS)
    done, _, learners = erase(clickhouse, "7")
    name = name_of("7")
    assert clickhouse.rows(COUNTS) == before
    assert (done.changed["events"], done.changed["assignment_telemetry"]) == (3, 5)
    rows = clickhouse.rows("SELECT actor_id, object_id, cdata, raw, edata FROM events ORDER BY received_at")
    assert [row[0] for row in rows] == [name, "bob", "bob", "bob"]
    assert [row[1] for row in rows] == ["", name, "7", ""]
    assert json.loads(rows[3][2]) == [{"type": "User", "id": name}, {"type": "Batch", "id": "7"}]
    assert json.loads(rows[0][3])["edata"] == json.loads(rows[0][4]) == {"level": "7"}
    assert json.loads(rows[2][3])["object"] == {"id": "7"}
    assert learners.erased == [7]
    assert clickhouse.rows("SELECT user_id, author FROM assignment_rows ORDER BY user_id") == [(8, 0), (9, 2)]


def test_only_users_are_erased(clickhouse: ClickHouse) -> None:
    eraser = PersonEraser(clickhouse, "", Datasets(), Learners())
    with pytest.raises(ValueError, match="only users"):
        eraser.erase(DimensionType.CONTENT, "do_1", "d", lambda step, at, of: None, lambda: None)


def test_what_is_left_in_spools_is_told(clickhouse: ClickHouse) -> None:
    insert(
        clickhouse,
        "collector_rows",
        id=("String", "c-1"),
        at=("DateTime64(3, 'UTC')", datetime(2026, 1, 1, tzinfo=UTC)),
        oldest=("DateTime64(3, 'UTC')", datetime(2026, 1, 1, tzinfo=UTC)),
        spooled_batches=("UInt64", 3),
        spooled_bytes=("UInt64", 99),
    )
    done, _, _ = erase(clickhouse, LONG)
    assert "spools of collectors: 3 batches, 99 bytes" in [left["where"] for left in done.report["left_to_time"]]
