"""Finding mids in Kafka values: exactly those that ``validate`` will give the events."""

from __future__ import annotations

import gzip
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream import topics
from midstream.events.judge import Judge
from midstream.events.schemas import load_schemas
from midstream.receipt import Receipt, encode_receipt, foreign_receipt
from midstream.settings import Settings
from midstream.trace.arrivals import BatchFacts, Evidence, Sighting
from midstream.trace.backlog import Budget, CutOffError
from midstream.trace.needles import Needles, is_searchable
from processors.validate.round import Round
from processors.validate.split import RawRecord

AT_MS = 1_790_000_000_000
JUDGE = Judge(load_schemas(), 512 * 1024, 64)
RECEIPT = Receipt(
    batch_id="b1",
    received_at_ms=AT_MS,
    events=1,
    sequence=0,
    collector="k",
    bytes=1,
    did="d",
    msgid="m",
    credential="app",
)
FACTS = BatchFacts("http", "m", "d", "app", topics.RAW.name, 3, 7)


def nothing() -> None:
    """Let the search go on."""


def event(mid: Any, **fields: Any) -> dict[str, Any]:
    return {
        "eid": "LOG",
        "ets": AT_MS,
        "ver": "3.0",
        "mid": mid,
        "actor": {"id": "u", "type": "User"},
        "context": {"channel": "c", "env": "e"},
        "edata": {"type": "t", "level": "INFO", "message": "m"},
        **fields,
    }


def body_of(*events: bytes) -> bytes:
    return b'{"events":[' + b",".join(events) + b"]}"


def raw(body: bytes, receipt: Receipt | None = RECEIPT, topic: str = topics.RAW.name) -> RawRecord:
    headers = [] if receipt is None else [("receipt", encode_receipt(receipt))]
    return RawRecord(topic, 3, 7, AT_MS + 5, body, headers)


def needles(*mids: str) -> Needles:
    return Needles(mids, JUDGE, 8 << 20, 50_000)


def places(found: list[tuple[str, Sighting]]) -> list[tuple[str, str, int]]:
    return [(mid, sighting.batch_id, sighting.event_index) for mid, sighting in found]


def fillers(count: int) -> list[str]:
    return [f"filler-{number}" for number in range(count)]


MANY = fillers(20)
"""Beside these a mid is one of many, which are searched in another way."""

MIDS = ["LOG:1", "a/b?c%2F#d", 'quo"te\\back', "ünï☃😀", "\u0000\n\t", "m" * 10_000, "/", "\u2028"]


@pytest.mark.parametrize("others", [[], MANY], ids=["alone", "among-many"])
@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("mid", MIDS)
def test_a_mid_is_found_however_it_is_written(mid: str, ensure_ascii: bool, others: list[str]) -> None:
    texts = [json.dumps(event(one), ensure_ascii=ensure_ascii).encode() for one in ("before", mid, mid + "x")]
    for body in (body_of(*texts), gzip.compress(body_of(*texts))):
        searched = needles(mid, *others).search(raw(body), nothing)
        assert searched.found == [(mid, Sighting(Evidence.BACKLOG, "b1", 1, AT_MS, facts=FACTS))]
        assert searched.size_bytes == len(body_of(*texts))


@pytest.mark.parametrize("others", [[], MANY], ids=["alone", "among-many"])
@given(mid=st.text(min_size=1, max_size=12), data=st.data())
def test_any_escapes_are_seen_through(mid: str, data: st.DataObject, others: list[str]) -> None:
    def escape(one: str) -> str:
        units = one.encode("utf-16-be")
        return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))

    pieces = [escape(one) if data.draw(st.booleans()) else json.dumps(one)[1:-1] for one in mid]
    text = orjson.dumps(event("\x00")).replace(b'"\\u0000"', f'"{"".join(pieces)}"'.encode())
    assert places(needles(mid, *others).search(raw(body_of(text)), nothing).found) == [(mid, "b1", 0)]


@pytest.mark.parametrize("others", [[], MANY], ids=["alone", "among-many"])
@pytest.mark.parametrize(
    "text",
    [
        orjson.dumps(event("M", eid="NOBODY")),  # no such eid
        b'{"mid":"M"}',
        b'{"mid":"M","x":NaN}',  # no JSON
        b'{"mid":"M","x":"\xff"}',  # no UTF-8
        b'{"mid":"x","mid":"M"}',  # a key twice
        b'{"mid":"M","deep":' + b"[" * 100 + b"]" * 100 + b"}",
        orjson.dumps(event("M", edata={"type": "t", "level": "INFO", "message": "x" * 600_000})),
    ],
)
def test_an_event_that_will_be_refused_is_found_by_the_mid_it_is_refused_under(text: bytes, others: list[str]) -> None:
    record = raw(body_of(orjson.dumps(event("other")), text))
    round_ = Round(Settings(), JUDGE, 1, 0)
    sealed = [
        one for one in (*round_.add(record), *round_.finish()) if one is not None and one.topic == topics.DEAD.name
    ]
    found = needles("M", *others).search(record, nothing).found
    assert places(found) == [("M", "b1", 1)]
    letters = [
        place
        for one in sealed
        for place in places(
            needles("M", *others).search(RawRecord(one.topic, 0, 0, AT_MS, one.value, ()), nothing).found
        )
    ]
    assert letters == places(found)


def test_a_mid_elsewhere_in_an_event_is_not_the_events() -> None:
    text = orjson.dumps(event("other", tags=["M"], edata={"type": "M", "level": "INFO", "message": '{"mid":"M"}'}))
    assert needles("M").search(raw(body_of(text, b'"M"', b'{"mid":5,"x":"M"}')), nothing).found == []
    assert needles("M", *MANY).search(raw(body_of(text, b'"M"', b'{"mid":5,"x":"M"}')), nothing).found == []


def test_a_batch_of_another_producer_has_the_identity_that_validate_gives_it() -> None:
    record = raw(body_of(orjson.dumps(event("M"))), receipt=None)
    ((_, sighting),) = needles("M").search(record, nothing).found
    expected = foreign_receipt(record.topic, record.partition, record.offset, record.append_time_ms, 0, 0)
    assert (sighting.batch_id, sighting.received_at_ms) == (expected.batch_id, record.append_time_ms)
    assert sighting.facts is not None
    assert (sighting.facts.source, sighting.facts.offset) == ("import", 7)


def test_a_spooled_batch_has_no_place_in_kafka() -> None:
    ((_, sighting),) = needles("M").search(raw(body_of(orjson.dumps(event("M"))), topic=""), nothing).found
    assert sighting.facts == BatchFacts("spool", "m", "d", "app", None, None, None)


@pytest.mark.parametrize("partitions", [1, 3])
def test_stored_to_be_are_found_in_any_block(partitions: int) -> None:
    mids = [f"m{number}" for number in range(50)]
    round_ = Round(Settings(), JUDGE, partitions, 0)
    record = raw(body_of(*(orjson.dumps(event(mid)) for mid in mids)))
    blocks = [one for one in (*round_.add(record), *round_.finish()) if one is not None]
    assert len(blocks) == partitions
    found = [
        place
        for block in blocks
        for place in places(
            needles("m7", "m30").search(RawRecord(block.topic, 0, 0, 0, block.value, ()), nothing).found
        )
    ]
    assert sorted(found) == [("m30", "b1", 30), ("m7", "b1", 7)]


@pytest.mark.parametrize("topic", [topic.name for topic in (topics.RAW, topics.VALID, topics.DEAD)])
@given(value=st.binary(max_size=200) | st.binary(max_size=50).map(gzip.compress))
def test_what_is_no_record_holds_nothing(topic: str, value: bytes) -> None:
    assert needles("M").search(raw(value, topic=topic), nothing).found == []


def test_a_search_ends_when_there_is_no_time_left() -> None:
    body = body_of(*(orjson.dumps(event("M")) for _ in range(1_000)))
    with pytest.raises(CutOffError):
        needles("M").search(raw(body), Budget(1 << 30, deadline_s=0).check_time)


def test_a_budget_ends_with_its_bytes_and_its_records() -> None:
    budget = Budget(10, float("inf"), records_left=2)
    budget.check(10)
    with pytest.raises(CutOffError):
        budget.check(11)
    budget.spend(9)
    budget.check(1)
    with pytest.raises(CutOffError):
        budget.check(2)
    budget.spend(0)
    with pytest.raises(CutOffError):
        budget.check(0)
    with pytest.raises(CutOffError):
        Budget(10, deadline_s=0).check(0)


@pytest.mark.parametrize(
    ("mid", "searchable"), [("", False), ("\ud800", False), ("a\udfff", False), ("x", True), ("\0", True)]
)
def test_what_no_event_can_have_as_its_mid_is_not_looked_for(mid: str, searchable: bool) -> None:
    assert is_searchable(mid) is searchable
