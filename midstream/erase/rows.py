"""Event rows under a pseudonym, with what else of them that changes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pyarrow as pa

from midstream.dimension_location import derive_location
from midstream.erase.events import Rewrite
from midstream.erased_events import REWRITTEN, rewrite_event

_COPIES = ("user", "device", "location", "flags")


def event_rewriter(id_: str, name: str) -> Rewrite:
    """Return what gives events of a user the pseudonym. An event whose actor the user was has no copy of the user any
    more."""

    def rewrite(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, Sequence[int]]:
        before = rows.select([*REWRITTEN, *_COPIES]).to_pylist()
        changed: list[int] = []
        after = []
        for place, row in enumerate(before):
            new = {**row, **rewrite_event(row, id_, name)}
            if row["actor_id"] == id_ and row["user"]:
                new["user"] = ""
                new["flags"] = _without_user(row["flags"])
                new["location"] = derive_location("device", row["device"])
            if new != row:
                changed.append(place)
            after.append(new)
        arrays = {
            name_: pa.array([row[name_] for row in after], rows.schema.field(name_).type)
            for name_ in (*REWRITTEN, *_COPIES)
        }
        columns = [arrays.get(field.name, rows.column(field.name)) for field in rows.schema]
        return pa.RecordBatch.from_arrays(columns, schema=rows.schema), changed

    return rewrite


def _without_user(flags: str) -> str:
    return orjson.dumps({**orjson.loads(flags), "user": "missing"}).decode()
