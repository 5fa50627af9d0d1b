"""Blocks for tests, made by the code that makes them in production."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from midstream.events.typed import from_parsed
from midstream.receipt import Receipt
from processors.store.block import read_block
from processors.validate.rows import LateWindow, Rows
from processors.validate.seal import ValidBlock

RECEIVED_AT_MS = 1_790_000_000_000


def event(mid: str, eid: str = "INTERACT", **fields: Any) -> dict[str, Any]:
    return {
        "eid": eid,
        "ets": RECEIVED_AT_MS - 1_000,
        "ver": "3.0",
        "mid": mid,
        "actor": {"id": "u1", "type": "User"},
        "context": {"channel": "c1", "env": "home", "did": "d1"},
        "edata": {"type": "TOUCH", "id": "button"},
        **fields,
    }


def receipt(batch_id: str = "b1", received_at_ms: int = RECEIVED_AT_MS) -> Receipt:
    return Receipt(
        batch_id=batch_id, received_at_ms=received_at_ms, events=1, sequence=0, collector="k", bytes=1, did="bd"
    )


def valid_row(value: dict[str, Any], raw: bytes, batch_id: str, index: int) -> pa.RecordBatch:
    """Return the row of an event in a batch, as ``validate`` makes it."""
    rows = Rows(LateWindow(400, 1))
    rows.add(receipt(batch_id), [index], [from_parsed(value, raw)], [raw])
    return rows.to_arrow()


def sealed(arrivals: list[tuple[dict[str, Any], str, int]]) -> bytes:
    """Return a telemetry.valid value of events, each with its batch and index."""
    import orjson

    block = ValidBlock(0, 1, 100_000, 1 << 30)
    for value, batch_id, index in arrivals:
        assert list(block.add(valid_row(value, orjson.dumps(value), batch_id, index))) == []
    (result,) = block.seal()
    return result.value


def block(arrivals: list[tuple[str, str, int]]) -> pa.RecordBatch:
    """Return a block of mids, each with its batch and index."""
    return read_block(sealed([(event(mid), batch_id, index) for mid, batch_id, index in arrivals]))[0]
