"""How many arrivals a dead letter stands for, and when a batch counts as received."""

from __future__ import annotations

import io
import json
from pathlib import Path

import fastavro
import pytest

from midstream.codes import Reason
from midstream.events.judge import Refused
from midstream.receipt import Receipt, encode_receipt
from midstream.records import decode_record, encode_record, head_of
from processors.store.verdicts import poison_record, reject_rows
from processors.validate.seal import DeadBlock
from processors.validate.split import read_receipt

AVRO = Path(__file__).parents[3] / "schemas" / "avro"
T = 1_790_000_000_000
DAY_MS = 24 * 3600 * 1000


def receipt(events: int = 7, received_at_ms: int = T) -> Receipt:
    return Receipt(
        batch_id="b1", received_at_ms=received_at_ms, events=events, sequence=0, collector="k", bytes=1, did="d"
    )


def test_a_body_stands_for_its_batch_and_an_event_for_itself() -> None:
    block = DeadBlock(0, 1 << 20)
    block.add(Refused(Reason.BATCH_UNREADABLE, "", "why"), b"body", receipt(), -1)
    block.add(Refused(Reason.INVALID_JSON, "", "why"), b"event", receipt(), 3)
    (sealed,) = block.seal()
    rows = reject_rows(sealed.value, T)
    assert [(row["scope"], row["event_index"], row["events"]) for row in rows] == [("batch", -1, 7), ("event", 3, 1)]


def test_a_record_inside_the_pipeline_that_cannot_be_read_stands_for_nothing() -> None:
    row = poison_record("telemetry.valid", 0, 5, T, b"?", "why", T)
    assert (row["scope"], row["events"]) == ("batch", 0)


def test_letters_from_before_stand_for_one() -> None:
    block = DeadBlock(0, 1 << 20)
    block.add(Refused(Reason.INVALID_JSON, "", "why"), b"event", receipt(), 3)
    (sealed,) = block.seal()
    letter = decode_record("telemetry.dead", sealed.value)["letters"][0]
    del letter["events"]
    older = fastavro.parse_schema(json.loads((AVRO / "telemetry.dead.v1.avsc").read_text()))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, older, {"letters": [letter]})
    value = head_of(older) + out.getvalue()
    assert value[:10] != encode_record("telemetry.dead", {"letters": []})[:10]
    assert [row["events"] for row in reject_rows(value, T)] == [1]


@pytest.mark.parametrize(
    ("appended_ms", "expected"),
    [(T, T), (T + 300 * DAY_MS, T), (T + 400 * DAY_MS, T + 400 * DAY_MS), (T - 2 * DAY_MS, T - 2 * DAY_MS)],
)
def test_a_batch_is_received_when_its_collector_says_unless_no_clock_is_so_wrong(
    appended_ms: int, expected: int
) -> None:
    found = read_receipt([("receipt", encode_receipt(receipt()))], appended_ms)
    assert found is not None
    assert found.received_at_ms == expected


def test_a_record_without_a_receipt_has_none() -> None:
    assert read_receipt([("other", b"x")], T) is None
