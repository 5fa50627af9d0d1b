"""Who, what and where beside each event: columns ``user, device, content, location, flags``, once a block.

A miss passes and is flagged: ``flags`` names each dimension that the event refers to, ``found`` or ``missing``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from processors.store.dimension_cache import Entry

COLUMNS = ("user", "device", "content", "location", "flags")
DENORMALISED_FROM = ("actor_type", "actor_id", "did", "object_id")

_NONE, _FOUND, _MISSING = 0, 1, 2
_STATES = (None, "found", "missing")
# Every combination of states of user, device and content, at user * 9 + device * 3 + content.
_FLAGS = [
    orjson.dumps({k: v for k, v in zip(("user", "device", "content"), states, strict=True) if v}).decode()
    for states in product(_STATES, repeat=3)
]


class Lookup(Protocol):
    """What :class:`processors.store.dimension_cache.DimensionCache` answers."""

    def get(self, type_: str, ids: Sequence[str]) -> list[Entry]:
        """Return the objects with these ids, in order."""


@dataclass(frozen=True, slots=True)
class _Joined:
    texts: pa.Array  # attributes as JSON text, a row each
    states: npt.NDArray[np.int64]
    locations: list[str]  # by distinct id
    codes: npt.NDArray[np.int64]  # row -> distinct id


def _join(lookup: Lookup, type_: str, ids: pa.Array) -> _Joined:
    encoded = ids.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    none = distinct.index("") if "" in distinct else None  # the event refers to none
    wanted = distinct if none is None else distinct[:none] + distinct[none + 1 :]
    entries = lookup.get(type_, wanted) if wanted else []
    texts = [entry.attributes for entry in entries]
    locations = [entry.location for entry in entries]
    states = [_FOUND if text else _MISSING for text in texts]
    if none is not None:
        texts.insert(none, "")
        locations.insert(none, "")
        states.insert(none, _NONE)
    codes = encoded.indices.to_numpy().astype(np.int64)
    attributes = pa.array(texts, pa.string()).take(encoded.indices)
    return _Joined(attributes, np.array(states, dtype=np.int64)[codes], locations, codes)


def denormalise(rows: pa.RecordBatch, lookup: Lookup) -> list[pa.Array]:
    """Return the columns :data:`COLUMNS` for these rows, of which :data:`DENORMALISED_FROM` are read.

    The user is looked up by ``actor_id`` where the actor is a User, the device by ``did``, the content by
    ``object_id``; the location is the user's, else the device's.
    """
    is_user = pc.equal(rows.column("actor_type"), "User")
    user = _join(lookup, "user", pc.if_else(is_user, rows.column("actor_id"), ""))
    device = _join(lookup, "device", rows.column("did"))
    content = _join(lookup, "content", rows.column("object_id"))

    places = pa.array([*user.locations, *device.locations], pa.string())
    user_has = np.array([bool(location) for location in user.locations], dtype=np.bool_)
    chosen = np.where(user_has[user.codes], user.codes, device.codes + len(user.locations))
    flags = user.states * 9 + device.states * 3 + content.states
    return [
        user.texts,
        device.texts,
        content.texts,
        places.take(pa.array(chosen)),
        pa.array(_FLAGS, pa.string()).take(pa.array(flags)),
    ]
