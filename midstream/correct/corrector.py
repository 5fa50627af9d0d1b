"""Gives stored events the present copies of the objects that they speak of."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from midstream.clickhouse.client import ClickHouse
from midstream.clickhouse.portions import portions
from midstream.correct.expressions import COPIES, Copy, flag_is, is_met, new_copy, new_flags, new_location
from midstream.correct.overlay import GRACE_S, IDS_LOOKED_AT, IDS_SHOWN, Objects, Overlay, shown
from midstream.dimension_location import derive_location
from midstream.dimensions import DimensionType
from midstream.logs import get_logger
from midstream.metrics import CORRECTED_EVENTS, CORRECTION_SECONDS, CORRECTIONS_LEFT_OUT
from processors.store.route import EVENT_TABLES

_log = get_logger(__name__)

_CHUNK_IDS = 5_000
_CHUNK_BYTES = 8 * 1024 * 1024
_MAX_COPIES_BYTES = 512 * 1024 * 1024
"""Of one portion. An object whose copies would take more keeps those it has: what is large and in many events belongs
into a join, not beside each of them."""
# Beyond so many updated rows that readers must put in place, the parts are written anew.
_MAX_PATCH_ROWS = 200_000
_MAX_PATCH_PARTS = 50


class StoppedError(Exception):
    """The caller asked to stop; what was corrected is corrected whole: so many events."""

    def __init__(self, changed: int) -> None:
        super().__init__()
        self.changed = changed


class Corrector:
    """One at a time in a deployment: who has the lease of the jobs. Blocks."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        cluster: str,
        *,
        grace_s: float = GRACE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clickhouse = clickhouse
        self._on_cluster = f"_local ON CLUSTER '{cluster}'" if cluster else ""
        self._overlay = Overlay(clickhouse, bool(cluster))
        self._grace_s = grace_s
        self._sleep = sleep

    def correct(
        self,
        type_: DimensionType,
        ids: Sequence[str] | None,
        *,
        fill: bool,
        progress: Callable[[int, int], None] = lambda done, total: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Correct the events of objects of a type; return how many events changed.

        Args:
            type_: of the objects. Events hold no copy of some types: 0 then.
            ids: of the objects; None: all.
            fill: only events whose flag says that the copy is missing or stale.
            progress: told how many of the objects that differ are done, and how many there are.
            should_stop: asked between portions of objects.

        Raises:
            ClickHouseError: it can be called again; no event shows anything else than before or after.
            StoppedError: ``should_stop`` was true.
        """
        if type_ not in COPIES:
            return 0
        self.recover()
        if ids is not None:
            self._overlay.look_at(ids)
        condition = "" if ids is None else f"AND id IN {IDS_LOOKED_AT}"
        changed = self._correct(type_, condition, fill, progress, should_stop)
        if ids is not None and not changed:
            self._overlay.clear()  # of the ids that were looked at
        return changed

    def repair(self, type_: DimensionType, since_ms: int, *, should_stop: Callable[[], bool] = lambda: False) -> int:
        """Give events a copy that was missing or stale when they were stored, of objects that were written since.

        Args:
            type_: of the objects.
            since_ms: epoch milliseconds of the writing; 0: all objects.
            should_stop: asked between portions of objects.

        Raises: as :meth:`correct`.
        """
        if type_ not in COPIES:
            return 0
        self.recover()
        written = f"AND stored_at >= fromUnixTimestamp64Milli({since_ms}, 'UTC')" if since_ms else ""
        return self._correct(type_, written, True, lambda done, total: None, should_stop)

    def left_over(self) -> Literal["", "correction", "erasure"]:
        """Return what one who died has left half done. Raises ClickHouseError."""
        type_, erasure = self._overlay.left_over()
        return "correction" if type_ else "erasure" if erasure else ""

    def recover(self) -> None:
        """Bring to its end what one who died has left shown. Whoever takes the lease calls it before anything else.

        Raises:
            ClickHouseError: it can be called again.
        """
        type_, erasure = self._overlay.left_over()
        if erasure:
            raise RuntimeError("an erasure was broken off, which must be recovered from first")
        if type_:
            _log.warning("correction.left_over", type=type_)
            self._overlay.take_over()
            self._carry_out(DimensionType(type_))

    def _correct(
        self,
        type_: DimensionType,
        condition: str,
        fill: bool,
        progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
    ) -> int:
        differing = self._differing(type_, condition, fill)
        changed = done = 0
        progress(0, len(differing))
        for objects in self._objects(type_, differing, fill):
            if should_stop():
                raise StoppedError(changed)
            with CORRECTION_SECONDS.time():
                rows = self._apply(type_, objects)
            CORRECTED_EVENTS.labels(type_).inc(rows)
            changed += rows
            done += len(objects.ids)
            progress(done, len(differing))
        if changed:
            self._put_in_place()
        return changed

    def _differing(self, type_: DimensionType, condition: str, fill: bool) -> dict[str, int]:
        """Return the objects of which events have another copy than the present one, and how many events."""
        # Hashes, as the texts of all objects of a type would not fit into memory.
        objects = (
            "SELECT id, xxh3(if(deleted, '', attributes)) AS hash, if(deleted, 'missing', 'found') AS state "  # noqa: S608
            f"FROM dimension_rows FINAL WHERE type = '{type_}' {condition}"
        )
        found: Counter[str] = Counter()
        for table in EVENT_TABLES:
            for copy in COPIES[type_]:
                other = (
                    f"xxh3({copy.column}) != hash OR position(flags, concat('\"{copy.column}\":\"', state, '\"')) = 0"
                )
                wanted = [f"({other})", f"{copy.id} != ''", *([copy.applies] if copy.applies else [])]
                wanted += [f"({flag_is(copy.column, 'missing', 'stale')})"] if fill else []
                query = (
                    f"SELECT {copy.id}, count() FROM {table} GLOBAL INNER JOIN ({objects}) AS objects "  # noqa: S608
                    f"ON {copy.id} = objects.id WHERE {' AND '.join(wanted)} GROUP BY {copy.id}"
                )
                found.update(dict(self._clickhouse.rows(query)))
        return dict(sorted(found.items()))

    def _objects(self, type_: DimensionType, events: Mapping[str, int], fill: bool) -> Iterator[Objects]:
        objects, size_bytes, copies_bytes = Objects(type_.value, fill), 0, 0
        for portion in portions(list(events)):
            rows = self._clickhouse.rows(
                "SELECT id, attributes, deleted FROM dimension_rows FINAL WHERE type = {type:String} AND "
                "id IN {ids:Array(String)} ORDER BY id",
                {"type": type_.value, "ids": portion},
            )
            for id_, attributes, deleted in rows:
                text = "" if deleted else attributes
                needed_bytes = len(text) * events[id_]
                if needed_bytes > _MAX_COPIES_BYTES:
                    CORRECTIONS_LEFT_OUT.labels(type_).inc(events[id_])
                    _log.warning("correction.too_large", type=type_.value, events=events[id_], bytes=len(text))
                    continue
                is_full = len(objects.ids) == _CHUNK_IDS or size_bytes + len(text) > _CHUNK_BYTES
                if is_full or copies_bytes + needed_bytes > _MAX_COPIES_BYTES:
                    yield objects
                    objects, size_bytes, copies_bytes = Objects(type_.value, fill), 0, 0
                objects.ids.append(id_)
                objects.texts.append(text)
                objects.locations.append(derive_location(type_, text))
                objects.states.append("missing" if deleted else "found")
                size_bytes += len(text)
                copies_bytes += needed_bytes
        if objects.ids:
            yield objects

    def _apply(self, type_: DimensionType, objects: Objects) -> int:
        self._overlay.show(objects)
        return self._carry_out(type_)

    def _carry_out(self, type_: DimensionType) -> int:
        """Update the tables as is shown. When that fails it stays shown, as one of them may be updated."""
        self._sleep(self._grace_s)
        changed = sum(self._update(table, type_) for table in EVENT_TABLES)
        self._overlay.clear()
        return changed

    def _update(self, table: str, type_: DimensionType) -> int:
        differs, changes = [], []
        for copy in COPIES[type_]:
            differs.append(_differs(copy))
            changes.append(f"{copy.column} = {new_copy(copy, shown)}")
        changes.append(f"flags = {new_flags(type_, shown)}")
        location = new_location(type_, shown)
        if location is not None:
            changes.append(f"location = {location}")
        condition = " OR ".join(f"({one})" for one in differs)
        ((rows,),) = self._clickhouse.rows(f"SELECT count() FROM {table} WHERE {condition}")  # noqa: S608 - constants
        if rows:
            self._overlay.check()
            self._clickhouse.command(f"UPDATE {table}{self._on_cluster} SET {', '.join(changes)} WHERE {condition}")  # noqa: S608
        return int(rows)

    def _put_in_place(self) -> None:
        for table in EVENT_TABLES:
            name = f"{table}_local" if self._on_cluster else table
            ((parts, rows),) = self._clickhouse.rows(
                "SELECT count(), sum(rows) FROM system.parts WHERE database = currentDatabase() AND active "
                "AND table = {table:String} AND startsWith(name, 'patch-')",
                {"table": name},
            )
            if parts > _MAX_PATCH_PARTS or rows > _MAX_PATCH_ROWS:
                self._clickhouse.command(f"ALTER TABLE {table}{self._on_cluster} APPLY PATCHES", {"mutations_sync": 0})


def _differs(copy: Copy) -> str:
    """Return SQL: the event is one of an object that is shown, and has another copy or flag."""
    state = f"transform({copy.id}, {shown('ids')}, {shown('states')}, '')"
    other = f"{copy.column} != {new_copy(copy, shown)} OR {_flag_differs(copy, state)}"
    return f"{copy.id} IN {IDS_SHOWN} AND {is_met(copy, shown)} AND ({other})"


def _flag_differs(copy: Copy, state: str) -> str:
    return f"position(flags, concat('\"{copy.column}\":\"', {state}, '\"')) = 0"
