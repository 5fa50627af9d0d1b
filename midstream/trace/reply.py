"""A trace as JSON, as ``GET /v1/trace/{mid}`` and ``midstream trace --json`` give it. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec

from midstream.trace.arrivals import Arrival, Trace


def as_dict(trace: Trace) -> dict[str, Any]:
    """Return the members of a trace's JSON object, all but ``event``; times are ISO 8601 in UTC."""
    stored: dict[str, Any] | None = None
    if trace.stored is not None:
        stored = {"table": trace.stored.table, "stored_at": iso(trace.stored.stored_at_ms)}
        if trace.stored.visible_at_ms is not None:
            stored["visible_at"] = iso(trace.stored.visible_at_ms)
    reply: dict[str, Any] = {
        "mid": trace.mid,
        "verdict": trace.verdict.value,
        "complete": trace.complete,
        "stored": stored,
        "reject": _reject(trace),
        "arrivals": [_arrival(arrival) for arrival in trace.arrivals],
    }
    if trace.more_arrivals:
        reply["more_arrivals"] = True
    return reply


def to_json(trace: Trace) -> bytes:
    """Return a trace as JSON, with its ``event`` if it has one, to the byte as it was sent."""
    reply = as_dict(trace)
    # A mid may hold half a surrogate pair, which only an escape can write.
    reply["mid"] = msgspec.Raw(json.dumps(trace.mid).encode())
    if trace.event is not None:
        reply["event"] = msgspec.Raw(trace.event.encode())
    return msgspec.json.encode(reply)


def in_ascii(text: str) -> str:
    """Return a JSON text with everything beyond ASCII escaped: so it can be no command to a terminal."""
    return "".join(one if one < "\x7f" else json.dumps(one)[1:-1] if one > "\x7f" else "\\u007f" for one in text)


def iso(epoch_ms: int) -> str:
    """Return a time as text: ``2023-11-14T22:13:20.000Z``."""
    seconds, ms = divmod(epoch_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def _arrival(arrival: Arrival) -> dict[str, Any]:
    facts = arrival.facts
    reply: dict[str, Any] = {
        "batch_id": arrival.batch_id,
        "event_index": arrival.event_index,
        "msgid": facts and facts.msgid,
        "received_at": iso(arrival.received_at_ms),
        "did": facts and facts.did,
        "credential": facts and facts.credential,
        "source": facts and facts.source,
        "topic": facts and facts.topic,
        "partition": facts and facts.partition,
        "offset": facts and facts.offset,
        "outcome": arrival.outcome.value,
    }
    if arrival.reject is not None:
        reply["code"] = arrival.reject.code
    if arrival.differs is not None:
        reply["differs"] = arrival.differs
    return reply


def _reject(trace: Trace) -> dict[str, str] | None:
    if trace.reject is None:
        return None
    return {"code": trace.reject.code, "pointer": trace.reject.pointer, "message": trace.reject.message}
