"""Finding mids in records that are on their way: which arrivals of them a Kafka value holds. Pure.

An event in ``telemetry.raw`` is judged by the function that ``validate`` judges it by, so that the mid found here is
the one that it will be stored or refused under. What cannot hold a mid is passed over by a search of its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa

from midstream import topics
from midstream.events.judge import Accepted, Judge
from midstream.inflate import InflateError, inflate
from midstream.receipt import Receipt
from midstream.records import RecordError, decode_record
from midstream.trace.arrivals import BatchFacts, Evidence, Sighting
from processors.validate.split import RawRecord, UnreadableBatch, hash_mid, split_record

Found = list[tuple[str, Sighting]]
"""Mids with an arrival of each."""

_CHECK_EVENTS = 64
_FEW = 8  # so many byte searches cost less than parsing every event
_ESCAPED_SHORTLY = frozenset('"\\/\b\f\n\r\t')
_COLUMNS = ("mid", "mid_hash", "batch_id", "event_index", "received_at")


def is_searchable(mid: str) -> bool:
    """Whether any event can have this mid: one is never empty, and always text that UTF-8 can write."""
    try:
        return bool(mid.encode())
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True, slots=True)
class Searched:
    """What one value held."""

    found: Found
    size_bytes: int
    """How much was looked through, inflated."""


class Needles:
    """The mids that are looked for."""

    def __init__(self, mids: Collection[str], judge: Judge, max_inflated_bytes: int, max_events: int) -> None:
        self._mids = frozenset(mids)
        self._judge = judge
        self._max_inflated_bytes = max_inflated_bytes
        self._max_events = max_events
        self._hashes = np.array([hash_mid(mid) for mid in self._mids], dtype=np.uint64)
        # As it stands in JSON when nothing in it is escaped.
        self._literals = [mid.encode() for mid in self._mids] if len(self._mids) <= _FEW else []
        # How else a mid can be written: any character as \\uXXXX, some by a shorter escape.
        self._escape = b"\\" if any(_ESCAPED_SHORTLY & set(mid) for mid in self._mids) else b"\\u"

    def search(self, record: RawRecord, check: Callable[[], None]) -> Searched:
        """Search a record of one of the three topics, or of a spool, whose ``topic`` is then empty.

        ``check`` is called now and then; what it raises ends the search.
        """
        if record.topic == topics.VALID.name:
            return self._search_valid(record.value)
        if record.topic == topics.DEAD.name:
            return self._search_dead(record.value)
        return self._search_raw(record, check)

    def _search_raw(self, record: RawRecord, check: Callable[[], None]) -> Searched:
        try:
            body = inflate(record.value, self._max_inflated_bytes)
        except InflateError:  # it will be refused whole, without any mid
            return Searched([], len(record.value))
        if self._literals and not self._may_hold(body):
            return Searched([], len(body))
        split = split_record(record, self._max_inflated_bytes, self._max_events)
        if isinstance(split, UnreadableBatch):
            return Searched([], len(body))
        receipt, batch = split
        facts = facts_of(receipt, record)
        found: Found = []
        for index, element in enumerate(batch.events):
            if index % _CHECK_EVENTS == 0:
                check()
            mid = self._mid_of(bytes(element))
            if mid is not None:
                sighting = Sighting(Evidence.BACKLOG, receipt.batch_id, index, receipt.received_at_ms, facts=facts)
                found.append((mid, sighting))
        return Searched(found, len(body))

    def _search_valid(self, value: bytes) -> Searched:
        try:
            arrow = decode_record(topics.VALID.name, value)["arrow"]
            table = _read_columns(arrow)
        except RecordError:  # it will be parked whole, without any mid
            return Searched([], len(value))
        hashes = table.column("mid_hash").to_numpy()
        rows = np.flatnonzero(np.isin(hashes, self._hashes))
        found: Found = [
            (row["mid"], Sighting(Evidence.BACKLOG, row["batch_id"], row["event_index"], row["received_at"]))
            for row in table.take(pa.array(rows)).to_pylist()
            if row["mid"] in self._mids
        ]
        return Searched(found, max(len(value), table.nbytes))

    def _search_dead(self, value: bytes) -> Searched:
        try:
            letters = decode_record(topics.DEAD.name, value)["letters"]
        except RecordError:
            return Searched([], len(value))
        found: Found = [
            (
                letter["mid"],
                Sighting(Evidence.BACKLOG, letter["batch_id"], letter["event_index"], letter["received_at_ms"]),
            )
            for letter in letters
            if letter["mid"] in self._mids
        ]
        return Searched(found, len(value))

    def _may_hold(self, text: bytes) -> bool:
        return any(literal in text for literal in self._literals) or self._escape in text

    def _mid_of(self, event: bytes) -> str | None:
        """Return the event's mid if it is one of those that are looked for."""
        if self._literals:
            if not self._may_hold(event):
                return None
        elif not self._may_be_of_many(event):
            return None
        verdict = self._judge.judge(event)
        mid = verdict.event["mid"] if isinstance(verdict, Accepted) else verdict.mid
        return mid if mid in self._mids else None

    def _may_be_of_many(self, event: bytes) -> bool:
        if b"\\u" in event or event.count(b'"mid"') > 1:  # a key may be escaped, or stand twice
            return True
        try:
            parsed = orjson.loads(event)
        except orjson.JSONDecodeError:
            return True
        mid = parsed.get("mid") if isinstance(parsed, dict) else None
        return isinstance(mid, str) and mid in self._mids


def facts_of(receipt: Receipt, record: RawRecord) -> BatchFacts:
    """Return what a batch's own record says of it."""
    spooled = not record.topic
    return BatchFacts(
        source="spool" if spooled else receipt.source,
        msgid=receipt.msgid,
        did=receipt.did,
        credential=receipt.credential,
        topic=None if spooled else record.topic,
        partition=None if spooled else record.partition,
        offset=None if spooled else record.offset,
    )


def _read_columns(arrow: bytes) -> pa.Table:
    """Read only the columns that are needed.

    Raises:
        RecordError: they are not there, or cannot be read.
    """
    try:
        names = pa.ipc.open_stream(arrow).schema.names
        wanted = [names.index(name) for name in _COLUMNS]
        with pa.ipc.open_stream(arrow, options=pa.ipc.IpcReadOptions(included_fields=wanted)) as reader:
            table = reader.read_all()
        table.validate()
        return table.set_column(
            table.schema.get_field_index("received_at"), "received_at", table.column("received_at").cast(pa.int64())
        )
    except (pa.ArrowException, ValueError, OSError) as error:
        raise RecordError(f"the rows of a {topics.VALID.name} block cannot be read: {error}") from error
