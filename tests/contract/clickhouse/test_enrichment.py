"""Copies of dimensions beside events, and erased users, from the topic's rows to the views of the real engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import zstandard

from midstream import topics
from midstream.clickhouse.client import ClickHouse
from midstream.dimensions import Dimension, DimensionType, encode_dimension
from midstream.erased import ErasedKey, erased_row, pseudonym
from midstream.records import encode_record
from processors.lease import Lease
from processors.store.dedupe.cache import DedupeCache
from processors.store.dedupe.stored import StoredMids
from processors.store.dimension_cache import DimensionCache
from processors.store.dimensions import DIMENSION_TABLE, DIMENSIONS, decode_rows, dimension_rows, load_erased
from processors.store.erased import ErasedUsers
from processors.store.storer import Storer, StoreRecord
from processors.store.units import InsertUnit
from tests.unit.store.rows import RECEIVED_AT_MS, event, sealed

KEY = ErasedKey(b"k" * 32)
NOBODY = ErasedUsers(lambda: None, 0)
COURSE = {
    "object": {"id": "do_1", "type": "Content", "rollup": {"l1": "do_course"}},
    "context": {
        "channel": "c1",
        "env": "home",
        "did": "d1",
        "rollup": {"l1": "org-1"},
        "cdata": [{"type": "CourseBatch", "id": "b-1"}],
    },
}


def sink(clickhouse: ClickHouse, *rows: Dimension, stored_at_ms: int = RECEIVED_AT_MS) -> None:
    """Store rows as the sink does it from the topic's records."""
    records: list[Any] = [SimpleNamespace(value=encode_dimension(row)) for row in rows]
    unit = InsertUnit(DIMENSION_TABLE, dimension_rows(decode_rows(records), NOBODY, lambda: stored_at_ms), "")
    clickhouse.insert_stream(
        unit.table, DIMENSIONS.names, unit.body(), unit.token, tries=1, before_try=lambda tries: None
    )


def dimension(type_: str, id_: str, attributes: str = "{}", version: int = 1) -> Dimension:
    return Dimension(DimensionType(type_), id_, attributes, version, False, RECEIVED_AT_MS)


class Counting:
    """Counts the queries for dimensions."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self.queries = 0

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> Sequence[tuple[Any, ...]]:
        self.queries += 1
        return self._clickhouse.rows(sql, parameters)


def cache_of(clickhouse: Any) -> DimensionCache:
    made = DimensionCache(clickhouse, 200_000, 1 << 28, 1_000)
    made.follow(True)
    return made


def storer(clickhouse: ClickHouse, erased: ErasedUsers | None = None) -> Storer:
    return Storer(clickhouse, cache_of(clickhouse), Lease(60_000), insert_tries=2, erased=erased)


def dedupe(clickhouse: ClickHouse) -> DedupeCache:
    made = DedupeCache(StoredMids(clickhouse), 1 << 20, 1_000)
    made.load([0], 1)
    return made


def store(
    clickhouse: ClickHouse, *arrivals: tuple[dict[str, Any], str, int], erased: ErasedUsers | None = None
) -> None:
    record = StoreRecord("telemetry.valid", 0, 0, RECEIVED_AT_MS, sealed(list(arrivals)))
    storer(clickhouse, erased).store_valid([record], dedupe(clickhouse))


def test_all_that_an_event_refers_to_stands_beside_it_in_both_tables(clickhouse: ClickHouse) -> None:
    keys = [
        ("user", "u1"), ("device", "d1"), ("content", "do_1"), ("content", "do_course"), ("organisation", "org-1"),
        ("batch", "b-1"),
    ]  # fmt: skip
    sink(clickhouse, *(dimension(type_, id_, f'{{"is":"{id_}"}}') for type_, id_ in keys))
    store(clickhouse, (event("a", **COURSE), "b1", 0), (event("b", "LOG", **COURSE), "b1", 1), (event("c"), "b1", 2))
    columns = "user, device, content, collection, organisation, batch"
    sql = f"SELECT mid, flags, collection_id, organisation_id, course_batch_id, {columns} FROM events ORDER BY mid"
    a, b, c = clickhouse.rows(sql)
    assert a[1:] == b[1:]
    assert [json.loads(text)["is"] for text in a[5:]] == [id_ for _, id_ in keys]
    assert a[2:5] == ("do_course", "org-1", "b-1")
    names = ["user", "device", "content", "collection", "organisation", "batch"]
    assert json.loads(a[1]) == dict.fromkeys(names, "found")
    assert c[2:5] == ("", "", "")
    assert json.loads(c[1]) == {"user": "found", "device": "found"}
    tables = clickhouse.rows("SELECT (SELECT count() FROM learning_events), (SELECT count() FROM operational_events)")
    assert [tuple(row) for row in tables] == [(2, 1)]


def test_rows_from_before_have_none_of_it(clickhouse: ClickHouse) -> None:
    clickhouse.command("INSERT INTO learning_events (mid, received_at) VALUES ('old', '2026-01-01 00:00:00')")
    clickhouse.command("INSERT INTO dimension_rows (type, id, version) VALUES ('user', 'old', 1)")
    sql = "SELECT collection, organisation, batch, collection_id, organisation_id, course_batch_id FROM events"
    assert [tuple(row) for row in clickhouse.rows(sql)] == [("",) * 6]
    assert clickhouse.rows("SELECT toUnixTimestamp64Milli(stored_at) FROM dimensions")[0][0] == 0


def test_what_has_changed_since_a_moment_can_be_asked_for(clickhouse: ClickHouse) -> None:
    sink(clickhouse, dimension("user", "u1"), dimension("user", "u2"), stored_at_ms=RECEIVED_AT_MS)
    sink(clickhouse, dimension("user", "u2", version=2), stored_at_ms=RECEIVED_AT_MS + 1_000)
    sql = f"SELECT id, version FROM dimensions WHERE stored_at > fromUnixTimestamp64Milli({RECEIVED_AT_MS})"
    assert [tuple(row) for row in clickhouse.rows(sql)] == [("u2", 2)]


def test_a_cold_start_asks_few_queries(clickhouse: ClickHouse) -> None:
    types = ["user", "device", "content", "organisation", "batch"]
    ids = [f"{number:08d}-9f8e-4d6c-5b4a-000000000000" for number in range(5_000)]
    for type_ in types:
        clickhouse.command(
            "INSERT INTO dimension_rows (type, id, attributes, version) SELECT "
            f"'{type_}', concat(leftPad(toString(number), 8, '0'), '-9f8e-4d6c-5b4a-000000000000'), "
            f'concat(\'{{"n":\', toString(number), \',"is":"{type_}"}}\'), 1 FROM numbers(4000)'
        )
    counting = Counting(clickhouse)
    found = cache_of(counting).get([(type_, ids) for type_ in types])
    assert counting.queries <= 5
    for type_, entries in zip(types, found, strict=True):
        expected = [f'{{"n":{number},"is":"{type_}"}}' for number in range(4_000)] + [""] * 1_000
        assert [entry.attributes for entry in entries] == expected


def test_ids_are_data_in_a_query_of_several_types(clickhouse: ClickHouse) -> None:
    odd = ["x' OR 1=1 --", "\\", "{ids_1:String}", "ü 語 😀", "\t\n\r", "a/b", "`", "%20", "x" * 1024]
    sink(clickhouse, *(dimension(type_, id_, f'{{"of":"{type_}"}}') for id_ in odd for type_ in ("user", "device")))
    users, devices, contents = cache_of(clickhouse).get([("user", [*odd, "nobody"]), ("device", odd), ("content", odd)])
    assert [entry.attributes for entry in users] == ['{"of":"user"}'] * len(odd) + [""]
    assert [entry.attributes for entry in devices] == ['{"of":"device"}'] * len(odd)
    assert {entry.attributes for entry in contents} == {""}


def test_an_id_that_no_row_can_have_is_kept_as_text(clickhouse: ClickHouse) -> None:
    long = "o" * 1_025
    context = {**COURSE["context"], "rollup": {"l1": long}}
    store(
        clickhouse, (event("a", context=context), "b1", 0), (event("b", actor={"id": "n\0", "type": "User"}), "b1", 1)
    )
    rows = clickhouse.rows("SELECT organisation_id, organisation, flags, actor_id FROM events ORDER BY mid")
    assert rows[0][:2] == (long, "")
    assert json.loads(rows[0][2])["organisation"] == "missing"
    assert (rows[1][3], json.loads(rows[1][2])["user"]) == ("n\0", "missing")


def test_a_dimension_of_a_megabyte_stands_beside_each_event(clickhouse: ClickHouse) -> None:
    large = '{"a":"' + "x" * (1 << 20) + '"}'
    sink(clickhouse, dimension("user", "u1", large))
    store(clickhouse, *((event(f"m{n}"), "b1", n) for n in range(40)))
    assert clickhouse.rows("SELECT count(), min(length(user)), max(length(user)) FROM events")[0] == (
        40,
        len(large),
        len(large),
    )


def erased_users(clickhouse: ClickHouse) -> ErasedUsers:
    users = ErasedUsers(lambda: KEY, 100)
    load_erased(clickhouse, users)
    return users


def test_erased_ids_are_no_dimensions_and_are_read_at_the_start(clickhouse: ClickHouse) -> None:
    sink(clickhouse, erased_row(KEY.digest("user", "u1"), 1), dimension("user", "u2"))
    sink(clickhouse, erased_row(KEY.digest("user", "u1"), 2))
    assert [row[0] for row in clickhouse.rows("SELECT id FROM dimensions")] == ["u2"]
    assert erased_users(clickhouse).find(["u1", "u2"]) == {"u1": pseudonym(KEY.digest("user", "u1"))}


@pytest.fixture
def gone(clickhouse: ClickHouse) -> str:
    """The id of a user who was erased while a row of theirs is still there."""
    id_ = "user-00017-9f8e"
    sink(clickhouse, erased_row(KEY.digest("user", id_), 1), dimension("user", id_, '{"name":"Gone"}'))
    return id_


def test_an_event_of_an_erased_user_is_stored_without_them(clickhouse: ClickHouse, gone: str) -> None:
    value = event("a", actor={"id": gone, "type": "User"}, edata={"type": "t", "id": f"/u/{gone}", "score": 1.0})
    store(clickhouse, (value, "b1", 0), (event("b"), "b1", 1), erased=erased_users(clickhouse))
    name = pseudonym(KEY.digest("user", gone))
    ((actor, user, flags, raw, edata_id),) = clickhouse.rows(
        "SELECT actor_id, user, flags, raw, edata_id FROM events WHERE mid = 'a'"
    )
    assert (actor, user, edata_id) == (name, "", f"/u/{name}")
    assert json.loads(flags) == {"user": "missing", "device": "missing"}
    assert orjson.loads(raw)["actor"] == {"id": name, "type": "User"}
    assert holders(clickhouse, gone) == []
    assert clickhouse.rows("SELECT actor_id FROM events WHERE mid = 'b'")[0][0] == "u1"


def test_a_worker_hears_of_an_erased_user_while_it_runs(clickhouse: ClickHouse) -> None:
    users = ErasedUsers(lambda: KEY, 100)
    worker, known = storer(clickhouse, users), dedupe(clickhouse)
    for mid in ("before", "after"):
        record = StoreRecord("telemetry.valid", 0, 0, RECEIVED_AT_MS, sealed([(event(mid), "b1", len(mid))]))
        worker.store_valid([record], known)
        users.add([KEY.digest("user", "u1")])
    rows = dict(clickhouse.rows("SELECT mid, actor_id FROM events"))
    assert rows == {"before": "u1", "after": pseudonym(KEY.digest("user", "u1"))}


def test_a_resend_of_an_erased_user_is_a_duplicate_as_before(clickhouse: ClickHouse, gone: str) -> None:
    value = event("a", actor={"id": gone, "type": "User"})
    store(clickhouse, (value, "b1", 0))  # nobody knew of it yet
    users = erased_users(clickhouse)
    store(clickhouse, (value, "b2", 0), erased=users)
    rows = clickhouse.rows("SELECT batch_id, first_batch_id, differs FROM duplicates")
    assert [tuple(row) for row in rows] == [("b2", "b1", False)]
    store(clickhouse, (event("n", actor={"id": gone, "type": "User"}), "b3", 0), erased=users)
    other = event("n", actor={"id": gone, "type": "User"}, edata={"type": "other", "id": gone})
    store(clickhouse, (other, "b4", 0), erased=users)
    rows = clickhouse.rows("SELECT batch_id, differs FROM duplicates WHERE mid = 'n'")
    assert [tuple(row) for row in rows] == [("b4", True)]


def test_rejects_of_an_erased_user_are_kept_without_them(clickhouse: ClickHouse, gone: str) -> None:
    users = erased_users(clickhouse)
    clickhouse.command("ALTER TABLE learning_events ADD CONSTRAINT no_poison CHECK mid != 'poison'")
    store(clickhouse, (event("poison", actor={"id": gone, "type": "User"}), "b1", 0), erased=users)
    raw = orjson.dumps({**event("x", actor={"id": gone, "type": "User"}), "of": gone})
    letters = [
        {
            "mid": "x", "eid": "X", "did": "", "channel": "", "batch_id": "b2", "event_index": index,
            "code": "UNKNOWN_EID", "pointer": "", "message": f"'{gone}' is not known", "scope": "event", "events": 1,
            "received_at_ms": RECEIVED_AT_MS, "raw": text, "raw_encoding": encoding,
        }
        for index, (text, encoding) in enumerate([(raw, "identity"), (zstandard.compress(raw), "zstd")])
    ]  # fmt: skip
    value = encode_record(topics.DEAD.name, {"letters": letters})
    storer(clickhouse, users).store_dead([StoreRecord(topics.DEAD.name, 0, 0, RECEIVED_AT_MS, value)])
    rows = clickhouse.rows("SELECT raw, message FROM rejects")
    assert len(rows) == 3
    assert all(pseudonym(KEY.digest("user", gone)) in row[0] for row in rows)
    assert holders(clickhouse, gone) == []


def holders(clickhouse: ClickHouse, id_: str) -> list[str]:
    """Return the views with a row that holds the id anywhere."""
    return [
        view
        for view in ("events", "duplicates", "rejects")
        if clickhouse.rows(
            f"SELECT count() FROM {view} WHERE position(toJSONString(tuple(*)), {{id:String}})", {"id": id_}
        )[0][0]
    ]


@pytest.mark.parametrize(("users", "least"), [(1, 0), (400, 100)])
def test_copies_beyond_what_fits_are_left_out_and_flagged(clickhouse: ClickHouse, users: int, least: int) -> None:
    """400 MB of them beside the events of one block: of one user, or each of another."""
    sink(clickhouse, dimension("device", "d1", '{"of":"d1"}'))
    clickhouse.command(
        "INSERT INTO dimension_rows (type, id, attributes, version) SELECT 'user', concat('u', toString(number)), "
        f"concat('{{\"a\":\"', repeat('x', 999992), '\"}}'), 1 FROM numbers({users}) SETTINGS max_block_size = 16"
    )
    events = [event(f"m{n}", actor={"id": f"u{n % users}", "type": "User"}) for n in range(400)]
    store(clickhouse, *((value, "b1", n) for n, value in enumerate(events)))
    ((events_, copies, missing, devices),) = clickhouse.rows(
        "SELECT count(), countIf(length(user) = 1000000), "
        "countIf(user = '' AND JSONExtractString(flags, 'user') = 'missing'), countIf(device != '') FROM events"
    )
    assert (events_, copies + missing, devices) == (400, 400, 400)
    assert least <= copies < 140
    store(clickhouse, *((value, "b1", n) for n, value in enumerate(events)))  # read again: the same insert
    assert clickhouse.rows("SELECT count() FROM events")[0][0] == 400
    assert clickhouse.rows("SELECT count() FROM duplicates")[0][0] == 0
    # Once there are fewer of them, they come: what was too large is not taken for what is not there.
    ((found,),) = cache_of(clickhouse).get([("user", ["u0"])])
    assert len(found.attributes) == 1_000_000
