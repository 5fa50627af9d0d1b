"""What the view ``events`` lays over the stored events, one thing at a time: rows of ``correction_rows``."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from midstream.clickhouse.client import ClickHouse, ClickHouseError

GRACE_S = 2.0
"""Time between a change of the overlay and the change of the tables: by then a query that read the overlay before knows
which parts of the tables it reads."""

_TABLE = "correction_rows"
_LOOKED_AT, _SHOWN = 0, 1  # slots
_TRIES = 5
_SCHEMA = pa.schema(
    [
        ("slot", pa.uint8()),
        ("generation", pa.uint64()),
        ("type", pa.string()),
        ("fill", pa.bool_()),
        ("ids", pa.list_(pa.string())),
        ("texts", pa.list_(pa.string())),
        ("locations", pa.list_(pa.string())),
        ("states", pa.list_(pa.string())),
        ("erasing", pa.uint32()),
        ("hidden", pa.list_(pa.string())),
    ]
)

IDS_LOOKED_AT = f"(SELECT arrayJoin(argMax(ids, generation)) FROM {_TABLE} WHERE slot = {_LOOKED_AT})"  # noqa: S608 - constants
"""SQL: the ids given to :meth:`Overlay.look_at`."""
IDS_SHOWN = f"(SELECT arrayJoin(argMax(ids, generation)) FROM {_TABLE} WHERE slot = {_SHOWN})"  # noqa: S608 - constants
"""SQL: the ids of the objects that are shown."""


def shown(part: str) -> str:
    """Return SQL: a part of what is shown, for :mod:`midstream.correct.expressions`."""
    return f"(SELECT argMax({part}, generation) FROM {_TABLE} WHERE slot = {_SHOWN})"  # noqa: S608 - a column's name


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of one type with their new copies, a place each."""

    type: str
    fill: bool
    """Only events whose flag says that the copy is missing or stale."""
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)


class TakenOverError(ClickHouseError):
    """Another process has changed what is shown since this one did: this one stood still, and its lease ran out."""

    def __init__(self) -> None:
        super().__init__("another process goes on with what this one had begun", None)


class Overlay:
    """Writes what is shown. One at a time in a deployment: who has the lease of the jobs.

    Who stood still and wakes up when its lease is another's must not go on: :meth:`check` tells by the generation.

    Every method may raise ClickHouseError; the row may be written then all the same.
    """

    def __init__(self, clickhouse: ClickHouse, is_cluster: bool) -> None:
        self._clickhouse = clickhouse
        self._is_cluster = is_cluster
        self._mine: int | None = None  # the generation that this process shows

    def look_at(self, ids: Sequence[str]) -> None:
        """Hand ids to the engine, more than fit into a query."""
        self._write(_LOOKED_AT, {"ids": list(ids)})

    def show(self, objects: Objects) -> None:
        """Show the objects' new copies in their events."""
        self._write(
            _SHOWN,
            {
                "type": objects.type,
                "fill": objects.fill,
                "ids": objects.ids,
                "texts": objects.texts,
                "locations": objects.locations,
                "states": objects.states,
            },
        )

    def keep_back(self, erasing: int) -> None:
        """Do not show the rows that an erasure writes."""
        self._write(_SHOWN, {"erasing": erasing})

    def swap(self, erasing: int, hidden: Sequence[str]) -> None:
        """Show the rows that an erasure wrote, and hide those of these mids from before it."""
        self.check()
        self._write(_SHOWN, {"erasing": erasing, "hidden": list(hidden)})

    def clear(self) -> None:
        """Show what is stored, and remove what was shown before from the disk."""
        self._write(_LOOKED_AT, {})
        if self._mine is not None:
            self.check()
            self._write(_SHOWN, {})
            self._mine = None
        if not self._is_cluster:  # a cluster's merges do it
            self._clickhouse.command(f"OPTIMIZE TABLE {_TABLE} FINAL")

    def left_over(self) -> tuple[str, int]:
        """Return what is shown: a type of objects or "", the number of an erasure or 0. Who died may have left it."""
        ((type_, erasing),) = self._clickhouse.rows(f"SELECT {shown('type')}, {shown('erasing')}")
        return type_, erasing

    def take_over(self) -> None:
        """Go on with what is shown as if this process had shown it."""
        self._mine = self._shown_generation()

    def check(self) -> None:
        """See that what this process shows is shown still, before anything is done by it.

        Raises:
            TakenOverError: it is not.
        """
        if self._mine is None or self._shown_generation() != self._mine:
            raise TakenOverError

    def _shown_generation(self) -> int:
        query = f"SELECT max(generation) FROM {_TABLE} WHERE slot = {_SHOWN}"  # noqa: S608 - constants
        return int(self._clickhouse.rows(query)[0][0])

    def _write(self, slot: int, parts: dict[str, object]) -> None:
        # Of both slots: a row of the same generation as one that is there would change nothing.
        ((newest,),) = self._clickhouse.rows(f"SELECT max(generation) FROM {_TABLE}")  # noqa: S608 - a constant
        none = {"type": "", "fill": False, "ids": [], "texts": [], "locations": [], "states": [], "erasing": 0}
        row = {**none, "hidden": [], **parts, "slot": slot, "generation": newest + 1}
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, _SCHEMA) as writer:
            writer.write_batch(pa.RecordBatch.from_pylist([row], schema=_SCHEMA))
        body: bytes = sink.getvalue().to_pybytes()
        self._clickhouse.insert_stream(
            _TABLE, _SCHEMA.names, body, uuid.uuid4().hex, tries=_TRIES, before_try=lambda _: None
        )
        if slot == _SHOWN:
            self._mine = newest + 1
