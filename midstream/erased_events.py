"""Rows of events and of ``rejects``, with an erased user's pseudonym in place of the id. Pure.

The replacement in columns follows :mod:`midstream.pseudonymise`, so that a row's columns agree with its ``raw``.
``mid`` stays, by which it is counted; ``content_hash`` stays that of the text as it came, by which a resend is known to
be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from midstream.pseudonymise import Path, pseudonymise, pseudonymise_bytes, pseudonymise_text

_JSON: dict[str, Path] = {
    "object_rollup": ("object", "rollup"),
    "context_rollup": ("context", "rollup"),
    "cdata": ("context", "cdata"),
    "edata": ("edata",),
    "raw": (),
}
"""Columns of JSON text, with the place of each in the event."""
_TEXTS = (
    "channel",
    "env",
    "did",
    "sid",
    "actor_id",
    "actor_type",
    "pdata_id",
    "pdata_pid",
    "pdata_ver",
    "object_id",
    "object_type",
    "object_ver",
    "edata_type",
    "edata_id",
    "edata_pageid",
    "edata_subtype",
)
REWRITTEN = (*_TEXTS, "tags", *_JSON)
"""Columns that may hold an id."""
REJECT_TEXTS = ("did", "channel", "pointer", "message")
"""Columns of ``rejects``, besides ``raw``, that may."""


def rewrite_event(row: Mapping[str, Any], id_: str, name: str) -> dict[str, Any]:
    """Return what :data:`REWRITTEN` of a row become.

    Args:
        row: values by column.
        id_: of the user.
        name: the pseudonym.
    """
    changed = {column: pseudonymise_text(row[column], id_, name) for column in _TEXTS}
    if row["actor_id"] == id_:
        changed["actor_id"] = name
    if row["object_id"] == id_ and row["object_type"].lower() == "user":
        changed["object_id"] = name
    changed |= {column: pseudonymise(row[column], id_, name, within) for column, within in _JSON.items()}
    return changed | {"tags": [pseudonymise_text(tag, id_, name) for tag in row["tags"]]}


def rewrite_reject(row: Mapping[str, Any], id_: str, name: str) -> dict[str, Any]:
    """Return a row of ``rejects``, whose ``raw`` is bytes of any kind, with the pseudonym."""
    # A message quotes an id as Python does.
    texts = {c: pseudonymise_text(row[c], id_, name).replace(repr(id_), repr(name)) for c in REJECT_TEXTS}
    return {**row, **texts, "raw": pseudonymise_bytes(row["raw"], id_, name)}
