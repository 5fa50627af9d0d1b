"""Who, what and where beside each event: the columns :data:`COLUMNS`, once a block.

A miss passes and is flagged: ``flags`` names each object that the event refers to, ``found``, ``missing``, or ``stale``
when the copy is of a row of which this worker knows that there is a newer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from midstream.metrics import DIMENSION_COPIES_LEFT_OUT
from processors.store.dimension_cache import Entry
from processors.store.references import REFERENCE_COLUMNS, REFERENCES, references

COLUMNS = (*REFERENCES, "location", "flags", "collection_id", "organisation_id", "course_batch_id")
DENORMALISED_FROM = REFERENCE_COLUMNS

MAX_COPIES_BYTES = 128 * 1024 * 1024
"""Of all copies beside the rows of a block, before they are inserted."""
_CHAR_BYTES = 4  # at most, in UTF-8

_TYPES = tuple("content" if name == "collection" else name for name in REFERENCES)
"""The type of dimension that each refers to; users come first, then devices."""

_NONE, _FOUND, _MISSING, _STALE = range(4)
_STATES = ("", "found", "missing", "stale")
_COMBINATIONS = len(_STATES) ** len(REFERENCES)


class Lookup(Protocol):
    """What :class:`processors.store.dimension_cache.DimensionCache` answers."""

    def get(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[list[Entry]]:
        """Return, for each type with ids, the objects with these ids, in order."""


@dataclass(frozen=True, slots=True)
class _Named:
    """Objects that the rows refer to in one way."""

    distinct: list[str]
    indices: pa.Array
    """Row -> distinct id."""
    codes: npt.NDArray[np.int32]
    """The same."""


def denormalise(rows: pa.RecordBatch, lookup: Lookup) -> list[pa.Array]:
    """Return the columns :data:`COLUMNS` for these rows, of which :data:`DENORMALISED_FROM` are read.

    Copies are dictionaries (in which a text may stand twice): whoever takes rows of them copies no texts.

    The location is the user's, else the device's. Where all copies together take too much memory, those of the objects
    that take most are left out, as if these were missing: another form of a block's insert would be another insert.
    """
    ids = references(rows)
    named = [_named(ids[name]) for name in REFERENCES]
    objects = _look_up(named, lookup)
    texts = [[entry.attributes for entry in entries] for entries in objects]
    _keep_within_bound(named, texts)
    copies: list[pa.Array] = []
    flags = np.zeros(rows.num_rows, np.int32)
    for one, entries, attributes in zip(named, objects, texts, strict=True):
        copies.append(_coded(one.indices, attributes))
        flags = flags * len(_STATES) + _states(entries, attributes)[one.codes]
    return [
        *copies,
        _locations(named, objects),
        _flag_texts(flags),
        ids["collection"],
        ids["organisation"],
        ids["batch"],
    ]


def _named(ids: pa.Array) -> _Named:
    encoded = ids.dictionary_encode()
    return _Named(encoded.dictionary.to_pylist(), encoded.indices, encoded.indices.to_numpy())


_NO_OBJECT = Entry("", -2)
"""Stands where an event refers to none."""


def _look_up(named: Sequence[_Named], lookup: Lookup) -> list[list[Entry]]:
    """Return the objects by distinct id, of all types together: what is not at hand is asked for in few queries."""
    nones = [one.distinct.index("") if "" in one.distinct else None for one in named]
    wanted = [
        (type_, one.distinct if none is None else one.distinct[:none] + one.distinct[none + 1 :])
        for type_, one, none in zip(_TYPES, named, nones, strict=True)
    ]
    objects = lookup.get(wanted)
    for entries, none in zip(objects, nones, strict=True):
        if none is not None:
            entries.insert(none, _NO_OBJECT)
    return objects


def _keep_within_bound(named: Sequence[_Named], texts: Sequence[list[str]]) -> None:
    """Take out the texts that take most, as far as the copies of all would take too much."""
    longest = sum(max(map(len, attributes), default=0) for attributes in texts)
    if longest * len(named[0].codes) * _CHAR_BYTES <= MAX_COPIES_BYTES:  # nearly always
        return
    sizes = sorted(
        (len(text.encode()) * int(count), kind, place)
        for kind, (one, attributes) in enumerate(zip(named, texts, strict=True))
        for place, (text, count) in enumerate(
            zip(attributes, np.bincount(one.codes, minlength=len(attributes)), strict=True)
        )
    )
    size_bytes = sum(size for size, _, _ in sizes)
    while size_bytes > MAX_COPIES_BYTES:
        copies_bytes, kind, place = sizes.pop()
        size_bytes -= copies_bytes
        texts[kind][place] = ""
        DIMENSION_COPIES_LEFT_OUT.inc()


def _states(entries: Sequence[Entry], attributes: Sequence[str]) -> npt.NDArray[np.int32]:
    states = [
        (_STALE if entry.is_stale else _FOUND) if text else (_NONE if entry is _NO_OBJECT else _MISSING)
        for entry, text in zip(entries, attributes, strict=True)
    ]
    return np.array(states, np.int32)


def _locations(named: Sequence[_Named], objects: Sequence[list[Entry]]) -> pa.Array:
    (user, device), (users, devices) = named[:2], objects[:2]
    places = [entry.location for entry in users]
    user_has = np.array(list(map(bool, places)), np.bool_)
    places += [entry.location for entry in devices]
    chosen = np.where(user_has[user.codes], user.codes, device.codes + len(users))
    return _coded(pa.array(chosen), places)


def _coded(indices: pa.Array, texts: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(indices, pa.array(texts, pa.string()))


def _flag_texts(flags: npt.NDArray[np.int32]) -> pa.Array:
    """Return the texts of these combinations of states. Few of the many that there are occur."""
    present = np.flatnonzero(np.bincount(flags, minlength=_COMBINATIONS))
    places = np.zeros(_COMBINATIONS, np.int32)
    places[present] = np.arange(len(present))
    return _coded(pa.array(places[flags]), [_flag_text(one) for one in present.tolist()])


@cache  # of _COMBINATIONS at most
def _flag_text(combination: int) -> str:
    states = []
    for name in reversed(REFERENCES):
        combination, state = divmod(combination, len(_STATES))
        states.append((name, _STATES[state]))
    return orjson.dumps({name: state for name, state in reversed(states) if state}).decode()
