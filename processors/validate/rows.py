"""One valid event as one row of :data:`midstream.columns.VALID`."""

from __future__ import annotations

from typing import Any

import orjson
import xxhash

from midstream.events.times import normalise_ets, original_ets
from midstream.receipt import Receipt

Row = tuple[Any, ...]

_DAY_MS = 24 * 3600 * 1000
_NOTHING: dict[str, Any] = {}


class LateWindow:
    """Tells whether an event's own time lies outside the accepted window around its receipt."""

    def __init__(self, late_after_days: int, early_after_days: int) -> None:
        self._late_ms = late_after_days * _DAY_MS
        self._early_ms = early_after_days * _DAY_MS

    def is_late(self, ets_ms: int, received_at_ms: int) -> bool:
        """Both are epoch milliseconds."""
        age_ms = received_at_ms - ets_ms
        return age_ms > self._late_ms or -age_ms > self._early_ms


def _json_text(value: Any) -> str:
    """Return ``value`` as JSON text, "" for what is absent."""
    return "" if value is None else orjson.dumps(value).decode()


def _text(value: Any) -> str:
    """Return a string as it is and "" for everything else: edata of a HEARTBEAT or of a deployment's own event may
    hold anything."""
    return value if value.__class__ is str else ""


def make_row(
    event: dict[str, Any], raw: bytes, text: str, receipt: Receipt, index: int, mid_hash: int, window: LateWindow
) -> Row:
    """Return the row of a valid event.

    Args:
        event: the parsed event, valid by its schema.
        raw: its bytes as they came; ``text`` is the same as text.
        receipt: of its batch.
        index: its place in the batch's ``events``.
        mid_hash: xxh3_64 of its ``mid``.
        window: what counts as late.
    """
    context = event["context"]
    actor = event["actor"]
    edata = event["edata"]
    pdata = context.get("pdata", _NOTHING)
    thing = event.get("object", _NOTHING)
    ets = event["ets"]
    ets_ms = normalise_ets(ets)
    received_at_ms = receipt.received_at_ms
    sent_at_ms = receipt.sent_at_ms
    duration = edata.get("duration")
    return (
        event["mid"],
        mid_hash,
        event["eid"],
        event["ver"],
        ets_ms,
        original_ets(ets, raw),
        received_at_ms,
        sent_at_ms,
        None if sent_at_ms is None else received_at_ms - sent_at_ms,
        context["channel"],
        context["env"],
        context.get("did") or receipt.did,
        context.get("sid", ""),
        actor["id"],
        actor["type"],
        pdata.get("id", ""),
        pdata.get("pid", ""),
        pdata.get("ver", ""),
        thing.get("id", ""),
        thing.get("type", ""),
        thing.get("ver", ""),
        _json_text(thing.get("rollup")),
        _json_text(context.get("rollup")),
        _json_text(context.get("cdata")),
        event.get("tags", ()),
        orjson.dumps(edata).decode(),
        _text(edata.get("type")),
        _text(edata.get("id")),
        _text(edata.get("pageid")),
        _text(edata.get("subtype")),
        float(duration) if duration.__class__ in (int, float) else None,
        window.is_late(ets_ms, received_at_ms),
        receipt.batch_id,
        index,
        xxhash.xxh3_64_intdigest(raw),
        text,
    )
