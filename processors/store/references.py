"""Which objects each event refers to, as columns of ids ("" for none): read from the event's own columns, once a block.

Besides what has a column of its own: the collection that the object lies in (``object.rollup.l1``), the organisation
(``context.rollup.l1``) and the course batch (an entry of ``context.cdata``). A text that stands in many rows is parsed
once; one of another shape names no object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

REFERENCES = ("user", "device", "content", "collection", "organisation", "batch")
"""What events refer to, in the order of their flags."""

REFERENCE_COLUMNS = ("actor_type", "actor_id", "did", "object_id", "object_rollup", "context_rollup", "cdata")
"""The columns that are read."""

_BATCH_TYPES = frozenset({"batch", "coursebatch"})
_IGNORED = str.maketrans("", "", " -_")
# No text without these letters can name a batch: nearly all others need not be parsed.
_MAY_NAME_A_BATCH = r"(?i)b[ _-]*a[ _-]*t[ _-]*c[ _-]*h"


def references(rows: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return the ids of each of :data:`REFERENCES`, of which :data:`REFERENCE_COLUMNS` are read.

    The actor is a user where its type is ``User``. A collection is only what differs from the object itself.
    """
    object_ids = rows.column("object_id")
    top = _each(rows.column("object_rollup"), _first_level)
    return {
        "user": pc.if_else(pc.equal(rows.column("actor_type"), "User"), rows.column("actor_id"), ""),
        "device": rows.column("did"),
        "content": object_ids,
        "collection": pc.if_else(pc.equal(top, object_ids), "", top),
        "organisation": _each(rows.column("context_rollup"), _first_level),
        "batch": _each(rows.column("cdata"), _batch, _MAY_NAME_A_BATCH),
    }


def _each(texts: pa.Array, read: Callable[[Any], str], only: str = "") -> pa.Array:
    """Return what ``read`` makes of each JSON text; "" for those that do not match the pattern ``only``."""
    encoded = texts.dictionary_encode()
    distinct = encoded.dictionary
    if only:
        chosen = pc.match_substring_regex(distinct, only)
        ids = [
            _read(text, read) if is_chosen else ""
            for text, is_chosen in zip(distinct.to_pylist(), chosen.to_pylist(), strict=True)
        ]
    else:
        ids = [_read(text, read) for text in distinct.to_pylist()]
    return pa.array(ids, pa.string()).take(encoded.indices)


def _read(text: str, read: Callable[[Any], str]) -> str:
    if not text:
        return ""
    try:
        return read(orjson.loads(text))
    except orjson.JSONDecodeError:
        return ""


def _first_level(rollup: Any) -> str:
    level = rollup.get("l1") if isinstance(rollup, dict) else None
    return level if isinstance(level, str) else ""


def _batch(cdata: Any) -> str:
    for entry in cdata if isinstance(cdata, list) else ():
        if not isinstance(entry, dict):
            continue
        type_, id_ = entry.get("type"), entry.get("id")
        if isinstance(type_, str) and type_.translate(_IGNORED).lower() in _BATCH_TYPES:
            return id_ if isinstance(id_, str) else ""
    return ""
