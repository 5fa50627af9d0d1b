import base64
import gzip
import random
from collections.abc import Iterable
from typing import Any

import orjson
import pyarrow as pa
import pytest
from aiokafka.structs import ConsumerRecord

from midstream import topics
from midstream.events.judge import Judge
from midstream.events.schemas import load_schemas
from midstream.receipt import Receipt, encode_receipt
from midstream.records import decode_record
from midstream.settings import Settings
from processors.attempts import Attempts
from processors.store.block import read_block
from processors.store.receipts import batch_rows, read_receipts
from processors.store.verdicts import reject_rows
from processors.validate.round import Round
from processors.validate.seal import Sealed
from processors.validate.split import RawRecord, hash_mid

RECEIVED_AT_MS = 1_790_000_000_000


def event(mid: str, **fields: Any) -> dict[str, Any]:
    return {
        "eid": "LOG",
        "ets": RECEIVED_AT_MS,
        "ver": "3.0",
        "mid": mid,
        "actor": {"id": "u", "type": "User"},
        "context": {"channel": "c", "env": "e"},
        "edata": {"type": "t", "level": "INFO", "message": "m"},
        **fields,
    }


def receipt(batch_id: str = "b1", **fields: Any) -> Receipt:
    facts = {
        "batch_id": batch_id,
        "received_at_ms": RECEIVED_AT_MS,
        "events": 1,
        "sequence": 0,
        "collector": "k",
        "bytes": 1,
    }
    return Receipt(**(facts | fields))


def record(body: bytes, facts: Receipt | None = None, offset: int = 0) -> RawRecord:
    headers = [] if facts is None else [("receipt", encode_receipt(facts))]
    return RawRecord(topics.RAW.name, 0, offset, RECEIVED_AT_MS + 5, body, headers)


def body_of(*events: Any) -> bytes:
    return orjson.dumps({"id": "api.telemetry", "ver": "3.0", "events": list(events)})


def run(records: Iterable[RawRecord], partitions: int = 1, **settings: Any) -> list[Sealed]:
    used = Settings(**settings)
    judge = Judge(load_schemas(None), used.max_event_bytes, used.max_event_depth)
    round_ = Round(used, judge, partitions, 0)
    sealed = [block for one in records for block in round_.add(one) if block is not None]
    return [*sealed, *round_.finish()]


def valid_rows(sealed: list[Sealed]) -> list[dict[str, Any]]:
    return [
        row for block in sealed if block.topic == topics.VALID.name for row in read_block(block.value)[0].to_pylist()
    ]


def dead_rows(sealed: list[Sealed]) -> list[dict[str, Any]]:
    return [row for block in sealed if block.topic == topics.DEAD.name for row in reject_rows(block.value, 0)]


def test_every_event_leaves_as_valid_or_as_a_dead_letter_under_its_index() -> None:
    sealed = run([record(body_of(event("a"), {"eid": "LOG"}, event("b"), 7), receipt(did="bd"))])
    assert [(row["mid"], row["event_index"], row["batch_id"]) for row in valid_rows(sealed)] == [
        ("a", 0, "b1"),
        ("b", 2, "b1"),
    ]
    assert [(row["code"], row["event_index"], row["scope"], row["did"]) for row in dead_rows(sealed)] == [
        ("MISSING_MID", 1, "event", "bd"),
        ("NOT_AN_OBJECT", 3, "event", "bd"),
    ]


def test_the_original_bytes_of_a_refused_event_are_kept_whole() -> None:
    odd = b'{ "eid" : "LOG",\n "mid":"\xff\xfe" }'
    body = b'{"events":[' + odd + b"," + orjson.dumps(event("a")) + b"]}"
    sealed = run([record(body, receipt())])
    ((refused),) = dead_rows(sealed)
    assert refused["raw"] == odd
    assert refused["code"] == "INVALID_UTF8"
    assert [row["mid"] for row in valid_rows(sealed)] == ["a"]


def test_the_original_text_of_a_valid_event_is_kept_whole() -> None:
    odd = b'{ "mid":"a",' + orjson.dumps(event("a"))[1:-1].replace(b'"mid":"a",', b"") + b"  }"
    ((row),) = valid_rows(run([record(b'{"events":[' + odd + b"]}", receipt())]))
    assert row["raw"].encode() == odd


def test_a_round_seals_all_it_began() -> None:
    sealed = run([record(body_of(event("a")), receipt()), record(body_of(event("b")), receipt("b2"), 1)], partitions=4)
    assert {row["mid"] for row in valid_rows(sealed)} == {"a", "b"}


def test_all_arrivals_of_a_mid_go_to_one_partition() -> None:
    events = [event(f"m{n}") for n in range(200)]
    sealed = run([record(body_of(*events), receipt()), record(body_of(*events), receipt("b2"), 1)], partitions=8)
    for block in sealed:
        for row in read_block(block.value)[0].to_pylist():
            assert hash_mid(row["mid"]) % 8 == block.partition
            assert row["mid_hash"] == hash_mid(row["mid"])


def test_the_same_record_makes_the_same_block_whenever_it_is_read() -> None:
    one = record(body_of(event("a"), event("b")), receipt())
    assert run([one])[0].value == run([one])[0].value


def test_blocks_are_sealed_by_rows_and_by_bytes() -> None:
    many = record(body_of(*(event(f"m{n}") for n in range(250))), receipt())
    by_rows = run([many], seal_rows=100)
    assert [block.rows for block in by_rows] == [100, 100, 50]
    large = record(body_of(*(event(f"m{n}", tags=["x" * 20_000]) for n in range(10))), receipt())
    by_bytes = run([large], seal_bytes=64 * 1024)
    assert len(by_bytes) == 3
    assert sum(block.rows for block in by_bytes) == 10


def test_a_block_tells_its_rows_and_its_oldest_receipt() -> None:
    first, second = receipt(), receipt("b2", received_at_ms=RECEIVED_AT_MS - 9)
    (block,) = run([record(body_of(event("a")), first), record(body_of(event("b")), second)])
    value = decode_record(topics.VALID.name, block.value)
    assert (value["rows"], value["oldest_received_at_ms"]) == (2, RECEIVED_AT_MS - 9)


def test_the_largest_event_fits_a_message_as_a_dead_letter() -> None:
    text = "".join(
        random.Random(1).choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=8_000_000)
    )
    sealed = run([record(body_of({"mid": "a", "x": text}, event("b")), receipt())])
    assert all(len(block.value) <= topics.MAX_MESSAGE_BYTES for block in sealed)
    ((refused),) = dead_rows(sealed)
    assert refused["code"] == "EVENT_TOO_LARGE"
    assert orjson.loads(refused["raw"])["x"] == text
    assert [row["mid"] for row in valid_rows(sealed)] == ["b"]


def test_what_hardly_compresses_is_spread_over_messages() -> None:
    noise = random.Random(2)
    events = [
        event(f"m{n}", eid="EXDATA", edata={"type": "t", "data": base64.b64encode(noise.randbytes(300_000)).decode()})
        for n in range(14)
    ]
    sealed = run([record(body_of(*events), receipt())])
    assert len(sealed) > 1
    assert all(len(block.value) <= topics.MAX_MESSAGE_BYTES for block in sealed)
    assert [row["mid"] for row in valid_rows(sealed)] == [f"m{n}" for n in range(14)]


def test_many_large_dead_letters_are_spread_over_messages() -> None:
    sealed = run([record(body_of(*({"x": str(n)[0] * 60_000} for n in range(100))), receipt())])
    assert len(sealed) > 1
    assert all(len(block.value) <= topics.MAX_MESSAGE_BYTES for block in sealed)
    assert len(dead_rows(sealed)) == 100


def test_gzip_is_inflated_here_too() -> None:
    assert len(valid_rows(run([record(gzip.compress(body_of(event("a"))), receipt())]))) == 1


@pytest.mark.parametrize("value", [b"", b"no json", b"[]", b'{"events":1}', gzip.compress(body_of(event("a")))[:-9]])
def test_a_record_that_is_no_batch_is_one_dead_letter_whole(value: bytes) -> None:
    sealed = run([record(value), record(body_of(event("a")), receipt(), 1)])
    ((refused),) = dead_rows(sealed)
    assert (refused["code"], refused["scope"], refused["event_index"]) == ("BATCH_UNREADABLE", "batch", -1)
    assert refused["raw"] == value
    assert [row["mid"] for row in valid_rows(sealed)] == ["a"]


@pytest.mark.parametrize("wrong", ['"events":-1', '"received_at_ms":1e300', '"bytes":"x"', '"batch_id":""', "nonsense"])
def test_a_receipt_that_no_table_could_take_is_none(wrong: str) -> None:
    header = encode_receipt(receipt())
    key = wrong.partition(":")[0]
    pairs = [pair for pair in header.decode()[1:-1].split(",") if not pair.startswith(key)]
    one = record(body_of(event("a")))
    forged = RawRecord(
        one.topic, 0, 0, one.append_time_ms, one.value, [("receipt", ("{" + ",".join([*pairs, wrong]) + "}").encode())]
    )
    ((row),) = valid_rows(run([forged]))
    assert row["batch_id"] != "b1"
    assert row["received_at"].timestamp() * 1000 == RECEIVED_AT_MS + 5


def test_a_batch_that_came_another_way_is_read_and_named_the_same_each_time() -> None:
    one = record(body_of(event("a"), event("b")))
    rows, again = valid_rows(run([one])), valid_rows(run([one]))
    assert [row["mid"] for row in rows] == ["a", "b"]
    assert rows == again
    assert rows[0]["received_at"].timestamp() * 1000 == RECEIVED_AT_MS + 5
    other = valid_rows(run([record(body_of(event("a")), offset=1)]))
    assert other[0]["batch_id"] != rows[0]["batch_id"]


def test_a_foreign_batch_of_millions_of_elements_is_one_dead_letter() -> None:
    sealed = run([record(gzip.compress(b'{"events":[' + b"0," * 2_000_000 + b"0]}"))])
    ((refused),) = dead_rows(sealed)
    assert (refused["code"], refused["scope"]) == ("BATCH_UNREADABLE", "batch")


class Trial:
    """A trial of a record; what was under work is in ``seen``."""

    def __init__(self, *parked: int, is_whole: bool = False, is_unreadable: bool = False) -> None:
        self.parked = parked
        self.is_whole = is_whole
        self.is_unreadable = is_unreadable
        self.has_parked = bool(parked) or is_whole
        self.message = "ValueError: what happened"
        self.seen: list[int] = []

    def at(self, index: int) -> None:
        self.seen.append(index)

    def times_parked(self, index: int) -> int:
        return self.parked.count(index)


def run_on_trial(one: RawRecord, trial: Trial, partitions: int = 2) -> list[Sealed]:
    used = Settings()
    round_ = Round(used, Judge(load_schemas(None), used.max_event_bytes, used.max_event_depth), partitions, 0)
    return [*(block for block in round_.add(one, trial) if block is not None), *round_.finish()]


def test_a_record_on_trial_comes_out_as_it_would_otherwise() -> None:
    one = record(body_of(event("a"), {"eid": "LOG"}, event("b"), 7), receipt(events=4))
    trial = Trial()
    assert run_on_trial(one, trial) == run([one], partitions=2)
    assert trial.seen == [0, 1, 2, 3, -1]


def test_a_parked_event_is_a_dead_letter_with_its_name_and_its_bytes() -> None:
    one = record(body_of(event("a"), event("b"), event("c")), receipt(events=3))
    sealed = run_on_trial(one, Trial(1))
    assert sorted(row["mid"] for row in valid_rows(sealed)) == ["a", "c"]
    ((dead),) = dead_rows(sealed)
    assert (dead["code"], dead["scope"], dead["event_index"], dead["events"]) == ("POISON", "event", 1, 1)
    assert (dead["mid"], dead["eid"], dead["channel"]) == ("b", "LOG", "c")
    assert dead["message"] == "ValueError: what happened"
    assert orjson.loads(dead["raw"]) == event("b")


def test_nothing_is_read_of_an_event_that_was_parked_twice() -> None:
    sealed = run_on_trial(record(body_of(event("a"), event("b")), receipt(events=2)), Trial(1, 1))
    ((dead),) = dead_rows(sealed)
    assert (dead["code"], dead["event_index"], dead["mid"], dead["channel"]) == ("POISON", 1, "", "")
    assert orjson.loads(dead["raw"]) == event("b")


def test_a_record_parked_whole_stands_for_all_its_events() -> None:
    body = body_of(event("a"), event("b"))
    ((dead),) = dead_rows(run_on_trial(record(body, receipt(events=2)), Trial(is_whole=True)))
    assert (dead["code"], dead["scope"], dead["event_index"], dead["events"]) == ("POISON", "batch", -1, 2)
    assert dead["raw"] == body


@pytest.mark.parametrize(
    ("value", "is_unreadable", "events"),
    [
        pytest.param(body_of(event("a"), event("b")), False, 2, id="what it holds can be counted"),
        pytest.param(body_of(event("a"), event("b")), True, 1, id="to count them may kill"),
        pytest.param(b"no batch", False, 1, id="it is no batch"),
    ],
)
def test_a_whole_foreign_record_stands_for_as_many_events_as_its_receipt_says(
    value: bytes, is_unreadable: bool, events: int
) -> None:
    ((dead),) = dead_rows(run_on_trial(record(value), Trial(is_whole=True, is_unreadable=is_unreadable)))
    assert (dead["code"], dead["events"], dead["event_index"], dead["raw"]) == ("POISON", events, -1, value)
    tries = Attempts.in_memory().lane(topics.RAW.name)
    kafka: Any = ConsumerRecord(topics.RAW.name, 0, 0, RECEIVED_AT_MS + 5, 0, None, value, None, 0, len(value), [])
    ((row),) = batch_rows(read_receipts([kafka], 10_000, 100, tries)).to_pylist()
    assert row["batch_id"] == dead["batch_id"]
    if not is_unreadable:
        assert row["events"] == dead["events"]


def test_what_fails_in_the_seal_fails_at_its_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a block with others nobody could tell which row it was."""
    from processors.validate.rows import Rows

    finish = Rows.to_arrow

    def fail(self: Rows) -> pa.RecordBatch:
        if any(event.envelope.mid == "bad" for event in self._events):
            raise OverflowError
        return finish(self)

    monkeypatch.setattr(Rows, "to_arrow", fail)
    one, trial = record(body_of(event("a"), event("bad"), event("c")), receipt()), Trial()
    with pytest.raises(OverflowError):
        run_on_trial(one, trial)
    assert trial.seen == [0, 1]
    assert [row["mid"] for row in valid_rows(run_on_trial(one, Trial(1), 1))] == ["a", "c"]
