"""Valid events as rows of :data:`midstream.columns.VALID`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from midstream.columns import VALID
from midstream.events.typed import ValidEvent
from midstream.receipt import Receipt
from processors.validate.split import hash_mid

_DAY_MS = 24 * 3600 * 1000


class LateWindow:
    """Tells whether events' own times lie outside the accepted window around their receipt."""

    def __init__(self, late_after_days: int, early_after_days: int) -> None:
        self._late_ms = late_after_days * _DAY_MS
        self._early_ms = early_after_days * _DAY_MS

    def are_late(self, ets_ms: npt.NDArray[np.int64], received_at_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Both are epoch milliseconds, one element an event; so is the answer."""
        age_ms = received_at_ms - ets_ms
        return (age_ms > self._late_ms) | (-age_ms > self._early_ms)


class Rows:
    """Rows in the making: events are added batch by batch, and become columns all at once.

    Not many at a time: live objects make every collection slower.
    """

    def __init__(self, window: LateWindow) -> None:
        self._window = window
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._events: list[ValidEvent] = []
        self._raws: list[bytes] = []
        self._indexes: list[int] = []
        self._receipts: list[Receipt] = []
        self._counts: list[int] = []
        self.raw_bytes = 0
        """Size of the texts of all events."""

    def __len__(self) -> int:
        return len(self._events)

    def add(
        self, receipt: Receipt, indexes: Sequence[int], events: Sequence[ValidEvent], raws: Sequence[bytes]
    ) -> None:
        """Add events of one batch.

        Args:
            receipt: of the batch.
            indexes: the place of each in the batch's ``events``.
            events: they themselves.
            raws: their bytes as they came.
        """
        self._receipts.append(receipt)
        self._counts.append(len(events))
        self._indexes += indexes
        self._events += events
        self._raws += raws
        self.raw_bytes += sum(map(len, raws))

    def to_arrow(self) -> pa.RecordBatch:
        """Return what has been added as one batch of ``VALID``, in that order."""
        columns = self._event_columns() | self._batch_columns() | self._edata_columns()
        return pa.RecordBatch.from_arrays([columns[name] for name in VALID.names], schema=VALID)

    def _event_columns(self) -> dict[str, pa.Array]:
        envelopes = [event.envelope for event in self._events]
        contexts = [envelope.context for envelope in envelopes]
        pdata = [context.pdata for context in contexts]
        things = [envelope.object for envelope in envelopes]
        mids = [envelope.mid for envelope in envelopes]
        return {
            "mid": _text(mids),
            "mid_hash": pa.array([hash_mid(mid) for mid in mids], pa.uint64()),
            "eid": _text([envelope.eid for envelope in envelopes]),
            "ver": _text([envelope.ver for envelope in envelopes]),
            "ets_original": _text([event.ets_original for event in self._events]),
            "channel": _text([context.channel for context in contexts]),
            "env": _text([context.env for context in contexts]),
            "sid": _text([context.sid for context in contexts]),
            "actor_id": _text([envelope.actor.id for envelope in envelopes]),
            "actor_type": _text([envelope.actor.type for envelope in envelopes]),
            "pdata_id": _text([one.id for one in pdata]),
            "pdata_pid": _text([one.pid for one in pdata]),
            "pdata_ver": _text([one.ver for one in pdata]),
            "object_id": _text([thing.id for thing in things]),
            "object_type": _text([thing.type for thing in things]),
            "object_ver": _text([thing.ver for thing in things]),
            "object_rollup": _json([thing.rollup for thing in things]),
            "context_rollup": _json([context.rollup for context in contexts]),
            "cdata": _json([context.cdata for context in contexts]),
            "tags": pa.array([envelope.tags for envelope in envelopes], VALID.field("tags").type),
            "content_hash": pa.array([xxhash.xxh3_64_intdigest(raw) for raw in self._raws], pa.uint64()),
            "raw": _utf8(self._raws),
        }

    def _batch_columns(self) -> dict[str, pa.Array]:
        """Return what events have of their batch, or together with it."""
        batch_of = np.repeat(np.arange(len(self._counts)), self._counts)
        receipts = self._receipts
        ets_ms = np.array([event.envelope.ets for event in self._events], np.int64)
        received_at_ms = np.array([receipt.received_at_ms for receipt in receipts], np.int64)
        sent_at_ms = [receipt.sent_at_ms for receipt in receipts]
        skew_ms = [None if one.sent_at_ms is None else one.received_at_ms - one.sent_at_ms for one in receipts]
        dids = [receipts[batch].did for batch in batch_of.tolist()]
        return {
            "ets": pa.array(ets_ms).view(_MS),
            "received_at": pa.array(received_at_ms[batch_of]).view(_MS),
            "sent_at": pa.array(sent_at_ms, _MS).take(batch_of),
            "skew_ms": pa.array(skew_ms, pa.int64()).take(batch_of),
            "did": _text([event.envelope.context.did or did for event, did in zip(self._events, dids, strict=True)]),
            "late": pa.array(self._window.are_late(ets_ms, received_at_ms[batch_of])),
            "batch_id": _text([receipt.batch_id for receipt in receipts]).take(batch_of),
            "event_index": pa.array(self._indexes, pa.uint32()),
        }

    def _edata_columns(self) -> dict[str, pa.Array]:
        edata = [event.edata for event in self._events]
        durations = [one.get("duration") for one in edata]
        return {
            "edata": _utf8([event.edata_text for event in self._events]),
            "edata_type": _strings(edata, "type"),
            "edata_id": _strings(edata, "id"),
            "edata_pageid": _strings(edata, "pageid"),
            "edata_subtype": _strings(edata, "subtype"),
            "edata_duration": pa.array(
                [float(value) if value.__class__ in (int, float) else None for value in durations], pa.float64()
            ),
        }


_MS = VALID.field("ets").type
_to_json = msgspec.json.Encoder().encode  # leaves no holes: see midstream.events.typed.write_json


def _text(values: list[str]) -> pa.Array:
    return pa.array(values, pa.string())


def _utf8(values: list[bytes]) -> pa.Array:
    """Return texts that are known to be UTF-8."""
    return pa.array(values, pa.binary()).view(pa.string())


def _json(values: list[Any]) -> pa.Array:
    """Return values as JSON text, "" for what is absent."""
    return _utf8([b"" if value is None else _to_json(value) for value in values])


def _strings(edata: list[dict[str, Any]], key: str) -> pa.Array:
    """Return strings as they are and "" for everything else: edata of a HEARTBEAT or of a deployment's own event may
    hold anything."""
    return _text([value if (value := one.get(key)).__class__ is str else "" for one in edata])
