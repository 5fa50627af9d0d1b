"""Records that others wrote to our topics: batches to be read, and garbage that must stop nothing."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator

import pyarrow as pa
import pytest

from midstream.records import encode_record
from midstream.topics import DEAD, DIMENSIONS, MAX_MESSAGE_BYTES, RAW, RECEIPT_HEADER, VALID
from tests.integration.outside import Outside, Record, Row, make_body, make_event, now_ms, processes_of, produce, unique
from tests.support.pipeline import PARTITIONS
from tests.support.waiting import wait_until

EACH_PARTITION = range(PARTITIONS)

# What a collector would write, and what no table could take.
RECEIPT: Row = {
    "batch_id": unique("batch"),
    "received_at_ms": now_ms(),
    "events": 1,
    "sequence": 0,
    "collector": unique("collector"),
    "bytes": 1,
}
WRONG: list[Row] = [
    {"batch_id": ""},
    {"batch_id": "x" * 10_000},
    {"received_at_ms": -1},
    {"received_at_ms": 10**15},
    {"events": -1},
    {"events": 2**40},
    {"sequence": -1},
    {"sequence": 2**70},
    {"bytes": 2**40},
    {"sent_at_ms": -5},
    {"did": None},
]


@pytest.fixture(autouse=True, scope="module")
def nothing_stops(outside: Outside) -> Iterator[None]:
    """No worker ends, every partition of every topic goes on, and all is accounted for."""
    before = processes_of(outside.pipeline)
    yield
    # So many, that every partition by mid has some of them.
    batch_ids = [outside.send([make_event(), {"eid": "NOBODY"}], x_device_id=unique("d")) for _ in range(8)]
    found = outside.settle(batch_ids)
    assert (found.stored, found.rejected) == (8, 8)
    assert processes_of(outside.pipeline) == before
    outside.wait_accounted()


def batch_at(outside: Outside, place: tuple[int, int]) -> Row:
    """Return the row of the batch at a place of `telemetry.raw`."""
    sql = (
        "SELECT * FROM batches WHERE topic = 'telemetry.raw' AND partition = {partition:UInt32}"
        " AND offset = {offset:UInt64}"
    )
    [row] = wait_until("its receipt is there", lambda: outside.rows(sql, partition=place[0], offset=place[1]))
    return row


def poison_at(outside: Outside, topic: str, place: tuple[int, int]) -> Row:
    """Return the row of rejects that keeps the record at a place of a topic."""
    sql = "SELECT *, hex(raw) AS raw_hex FROM rejects WHERE code = 'POISON' AND startsWith(message, {where:String})"
    where = f"{topic}/{place[0]}/{place[1]}: "
    [row] = wait_until("it is parked", lambda: outside.rows(sql, where=where))
    return row


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("key", [None, b"any key"], ids=["no key", "a key"])
def test_a_readable_batch_is_imported(outside: Outside, packed: bool, key: bytes | None) -> None:
    events = [make_event(did=None), make_event("LOG"), {"eid": "NOBODY", "mid": "x"}]
    body = make_body(events, did="from elsewhere", msgid=unique("m"))
    [place] = produce(outside.pipeline, RAW.name, [Record(gzip.compress(body) if packed else body, key)])
    batch = batch_at(outside, place)
    assert batch["source"] == "import"
    assert (batch["events"], batch["did"], batch["credential"]) == (3, "from elsewhere", "")
    found = outside.settle([batch["batch_id"]])
    assert (found.stored, found.rejected) == (2, 1)
    stored = outside.events([event["mid"] for event in events])
    assert stored[events[0]["mid"]]["did"] == "from elsewhere"
    assert {row["received_at"] for row in stored.values()} == {batch["received_at"]}


def test_the_same_batch_written_twice_is_two_arrivals(outside: Outside) -> None:
    event = make_event()
    places = produce(outside.pipeline, RAW.name, [Record(make_body([event])) for _ in range(2)])
    batch_ids = [batch_at(outside, place)["batch_id"] for place in places]
    assert len(set(batch_ids)) == 2
    found = outside.settle(batch_ids)
    assert (found.stored, found.duplicate) == (1, 1)


def test_a_receipt_that_is_none_does_not_count(outside: Outside) -> None:
    receipts = [b"", b"nonsense", b"[]", b"{}", b"\xff", b'{"batch_id": 1}', b"[" * 10_000]
    receipts += [json.dumps({**RECEIPT, **change}).encode() for change in WRONG]
    receipts.append(json.dumps(RECEIPT).encode())
    events = [make_event() for _ in receipts]
    records = [
        Record(make_body([event]), headers=[("other", b"x"), (RECEIPT_HEADER, receipt)])
        for event, receipt in zip(events, receipts, strict=True)
    ]
    batches = [batch_at(outside, place) for place in produce(outside.pipeline, RAW.name, records)]
    assert [batch["source"] for batch in batches] == ["import"] * (len(receipts) - 1) + ["http"]
    assert {batch["events"] for batch in batches} == {1}
    assert outside.settle([batch["batch_id"] for batch in batches]).stored == len(events)
    assert set(outside.events([event["mid"] for event in events])) == {event["mid"] for event in events}


UNREADABLE = {
    "nothing": b"",
    "not JSON": b"hello",
    "no events": b'{"id": "api.telemetry"}',
    "truncated gzip": gzip.compress(make_body([make_event()]))[:-20],
    "too much of it": gzip.compress(b" " * 2 * MAX_MESSAGE_BYTES),
    "bytes of any kind": bytes(range(256)) * 4_000,
    "as long as a message may be": b"\x00\xff" * (MAX_MESSAGE_BYTES // 2),
}


def test_an_unreadable_batch_is_a_reject_whole(outside: Outside) -> None:
    """In every partition, each between two readable ones."""
    values = [(name, value, partition) for name, value in UNREADABLE.items() for partition in EACH_PARTITION]
    records = [
        Record(record, partition=partition)
        for _, value, partition in values
        for record in (make_body([make_event()]), value, make_body([make_event()]))
    ]
    places = produce(outside.pipeline, RAW.name, records)
    batches = [batch_at(outside, place) for place in places]
    found = outside.settle([batch["batch_id"] for batch in batches])
    assert (found.stored, found.rejected) == (2 * len(values), len(values))
    for (name, value, _), batch in zip(values, batches[1::3], strict=True):
        assert (batch["source"], batch["events"], batch["bytes"]) == ("import", 1, len(value)), name
        [reject] = outside.rejects([batch["batch_id"]])
        assert (reject["code"], reject["scope"], reject["event_index"]) == ("BATCH_UNREADABLE", "batch", -1), name
        assert (reject["mid"], reject["pointer"]) == ("", "")
        assert reject["message"]
        assert reject["raw"] == value, name
        assert reject["received_at"] == batch["received_at"]


def test_a_record_without_a_value_is_a_reject(outside: Outside) -> None:
    [place] = produce(outside.pipeline, RAW.name, [Record(None, b"a tombstone")])
    batch = batch_at(outside, place)
    outside.settle([batch["batch_id"]])
    [reject] = outside.rejects([batch["batch_id"]])
    assert (reject["code"], reject["raw"]) == ("BATCH_UNREADABLE", b"")


def valid_block(arrow: bytes) -> bytes:
    return encode_record(VALID.name, {"rows": 1, "partitions": 2, "oldest_received_at_ms": 0, "arrow": arrow})


def other_columns() -> bytes:
    """Return rows that are Arrow, but not ours."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch({"mid": ["x"], "eid": ["LOG"]})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    rows: bytes = sink.getvalue().to_pybytes()
    return rows


def half(value: bytes) -> bytes:
    return value[: len(value) // 2]


BLOCKS = {
    "nothing": b"",
    "garbage": b"garbage",
    "a fingerprint of nobody": b"\xc3\x01" + struct.pack("<Q", 7) + b"x" * 50,
    "the fingerprint alone": valid_block(b"")[:10],
    "no rows": valid_block(b""),
    "rows that are no Arrow": valid_block(b"no arrow here" * 20),
    "Arrow that is cut short": valid_block(half(other_columns())),
    "other columns": valid_block(other_columns()),
    "cut short": half(valid_block(other_columns())),
    "bytes of any kind": bytes(range(256)) * 1_000,
}


@pytest.mark.parametrize("topic", [VALID.name, DEAD.name])
def test_garbage_between_our_own_stages_is_parked(outside: Outside, topic: str) -> None:
    """In every partition, with good records before and after it (the fixture sends the latter)."""
    outside.settle([outside.send([make_event(), {"eid": "NOBODY"}])])
    # Values must differ: the rows of one value are inserted once.
    values = {(name, partition): value for name, value in BLOCKS.items() for partition in EACH_PARTITION}
    places = produce(
        outside.pipeline, topic, [Record(value, partition=partition) for (_, partition), value in values.items()]
    )
    for ((name, _), value), place in zip(values.items(), places, strict=True):
        row = poison_at(outside, topic, place)
        assert (row["scope"], row["event_index"], row["mid"]) == ("batch", -1, ""), name
        assert bytes.fromhex(row["raw_hex"]) == value, name


def test_garbage_among_dimensions_is_passed_over(outside: Outside) -> None:
    user = unique("u")
    good = json.dumps({"id": user, "attributes": {"n": 1}}).encode()
    records = [Record(value, unique("k").encode(), partition=n) for value in BLOCKS.values() for n in EACH_PARTITION]
    produce(outside.pipeline, DIMENSIONS.name, [*records, Record(None, b"user/gone")])
    assert outside.operate("POST", "/v1/dimensions/user", good).json()["accepted"] == 1
    sql = "SELECT count() FROM dimensions WHERE id = {id:String}"
    wait_until("it is in ClickHouse", lambda: outside.value(sql, id=user) == 1)
    event = make_event(actor=user)
    outside.settle([outside.send([event])])
    assert json.loads(outside.events([event["mid"]])[event["mid"]]["user"]) == {"n": 1}
