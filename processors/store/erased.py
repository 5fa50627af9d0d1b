"""What arrives of erased users: their id is replaced by the pseudonym before anything else is done with it.

How, :mod:`midstream.erased_events` says. The deduplication token stays, which is made of the Kafka value.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from midstream.columns import VALID
from midstream.dimensions import DimensionType
from midstream.erased import ErasedKey, pseudonym
from midstream.erased_events import REWRITTEN, rewrite_event, rewrite_reject
from midstream.metrics import ERASED_DIGESTS_HELD, ERASED_IDS, PSEUDONYMISED_EVENTS

_MAX_DIGESTS = 50_000

# Within the actor's braces, so that what was looked at is not looked at again.
_ACTOR_ID = re.compile(rb'"actor"\s*+:\s*+\{[^{}]*?"id"\s*+:\s*+("[^"\\]*+(?:\\.[^"\\]*+)*+")', re.DOTALL)


class ErasedError(Exception):
    """Nothing may be stored: what erased users send could not be told from the rest."""


class ErasedUsers:
    """Digests of the ids of all users that were erased. Thread-safe: a worker's event loop adds what Kafka brings."""

    def __init__(self, load_key: Callable[[], ErasedKey | None], max_ids: int) -> None:
        """``load_key`` is called when there is a digest for the first time; None: there is no key."""
        self._load_key = load_key
        self._max_ids = max_ids
        self._lock = threading.Lock()
        self._key: ErasedKey | None = None
        self._erased: set[str] = set()
        self._digests: dict[str, str] = {}  # id -> digest, the eldest first

    @property
    def is_anybody(self) -> bool:
        """Whether anybody was erased at all."""
        return bool(self._erased)

    def add(self, digests: Iterable[str]) -> None:
        """Take digests of erased ids.

        Raises:
            ErasedError: there is no key to make digests with, or more of them than this worker holds.
        """
        with self._lock:
            self._erased.update(digests)
            ERASED_IDS.set(len(self._erased))
            if self._erased and self._key is None:
                self._key = self._load_key()
                if self._key is None:
                    raise ErasedError(
                        f"{len(self._erased)} users were erased, and the key by which their ids are known is not here: "
                        "copy registry.key from the home of the machine that erased them"
                    )
            if len(self._erased) > self._max_ids:
                raise ErasedError(f"more than {self._max_ids} users were erased: raise MIDSTREAM_MAX_ERASED_IDS")

    def find(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the pseudonyms of those ids that were erased, by id."""
        if not self._erased:
            return {}
        found = {}
        with self._lock:
            for id_ in ids:
                digest = self._digests.get(id_) or self._digest(id_)
                if digest in self._erased:
                    found[id_] = pseudonym(digest)
            ERASED_DIGESTS_HELD.set(len(self._digests))
        return found

    def _digest(self, id_: str) -> str:
        assert self._key is not None  # noqa: S101  # add() sees to it before there is one to find
        digest = self._digests[id_] = self._key.digest(DimensionType.USER, id_)
        if len(self._digests) > _MAX_DIGESTS:
            del self._digests[next(iter(self._digests))]
        return digest


def replace_erased(block: pa.RecordBatch, users: ErasedUsers) -> pa.RecordBatch:
    """Return a block's rows with pseudonyms in place of erased users who act in them, or are their object.

    What a newer version has added to these rows may name them too, in a way that this version does not know: it is left
    out.
    """
    if not users.is_anybody:
        return block
    is_of_user = pc.equal(pc.utf8_lower(block.column("object_type")), "user")
    places = {"actor_id": block.column("actor_id"), "object_id": pc.if_else(is_of_user, block.column("object_id"), "")}
    found = users.find({id_ for column in places.values() for id_ in pc.unique(column).to_pylist() if id_})
    if not found:
        return block
    values = pa.array(list(found), pa.string())
    concerned = {name: pc.is_in(column, values) for name, column in places.items()}
    rows = np.flatnonzero(pc.or_(*concerned.values()).to_numpy(zero_copy_only=False))
    taken = block.select(REWRITTEN).take(pa.array(rows)).to_pylist()
    for row in taken:
        ids = [row["actor_id"]] + [row["object_id"]] * (row["object_type"].lower() == "user")
        for id_ in ids:
            if id_ in found:
                row |= rewrite_event(row, id_, found[id_])
    PSEUDONYMISED_EVENTS.inc(len(taken))
    order = np.arange(block.num_rows)
    order[rows] = block.num_rows + np.arange(len(rows))
    columns = [
        pa.concat_arrays([column, pa.array([row[field.name] for row in taken], field.type)]).take(pa.array(order))
        if field.name in REWRITTEN
        else column
        if field.name in VALID.names
        else pc.if_else(pa.array(np.isin(np.arange(block.num_rows), rows)), pa.scalar(None, field.type), column)
        for field, column in zip(block.schema, block.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=block.schema)


def replace_in_reject(row: dict[str, Any], users: ErasedUsers) -> dict[str, Any]:
    """Return a row of ``rejects`` with pseudonyms in place of erased users who act in its text, which may be a batch's
    and may be no JSON. In a text that is compressed or no UTF-8 around the actor nobody is found."""
    if not users.is_anybody:
        return row
    for id_, name in users.find(_actors(row["raw"])).items():
        row = rewrite_reject(row, id_, name)
    return row


def _actors(raw: bytes) -> set[str]:
    ids: set[str] = set()
    for text in set(_ACTOR_ID.findall(raw)):
        try:
            ids.add(orjson.loads(text))
        except orjson.JSONDecodeError:
            continue
    return ids
