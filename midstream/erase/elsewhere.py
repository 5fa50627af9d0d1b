"""What else is stored of an erased person: refused events, batches, dimensions, devices' reports, learners' records."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import attrgetter
from typing import NamedTuple

import pyarrow as pa

from midstream.clickhouse.client import ClickHouse
from midstream.dimensions import DimensionType
from midstream.erase.naming import holds, is_long, quoted, replaced
from midstream.erased_events import REJECT_TEXTS, rewrite_reject

_SYNC = {"mutations_sync": 2}
_REJECTS_A_QUERY = 20  # the text of a refused batch may take 8 MiB
_TRIES = 5


# What is one row of a table, however often it is there before a merge.
_KEYS = {
    "batch_rows": "received_at, batch_id",
    "dimension_rows": "type, id",
    "device_rows": "device_id, kind, key, at, digest, receipt_id",
    "device_latest_rows": "device_id, kind, key",
    "assignment_rows": "academy_id, asset_slug, user_id, version",
}


class _Place(NamedTuple):
    month: int
    received_at_ms: int
    batch_id: str
    event_index: int


class Elsewhere:
    """Tables besides those of events. Each method may be called again, blocks, and returns how many rows changed; each
    may raise ClickHouseError."""

    def __init__(self, clickhouse: ClickHouse, cluster: str) -> None:
        self._clickhouse = clickhouse
        self._on_cluster = f"_local ON CLUSTER '{cluster}'" if cluster else ""

    def rejects(self, id_: str, name: str) -> int:
        """Write the texts of refused events again under the pseudonym. A row is replaced by the one that came last."""
        where = " OR ".join(holds(column, id_) for column in ("raw", *REJECT_TEXTS))
        places = self._clickhouse.rows(
            "SELECT toYYYYMM(received_at), toUnixTimestamp64Milli(received_at), batch_id, event_index "  # noqa: S608
            f"FROM reject_rows FINAL WHERE {where} ORDER BY received_at, batch_id, event_index"
        )
        changed = 0
        for month, of_month in groupby(map(_Place._make, places), key=attrgetter("month")):
            rewritten = 0
            for portion in _portions(of_month):
                rows = self._rewritten(portion, id_, name)
                if rows.num_rows:
                    self._insert("reject_rows", rows)
                    rewritten += rows.num_rows
            if rewritten:  # the former rows leave the disk
                self._clickhouse.command(f"OPTIMIZE TABLE reject_rows{self._on_cluster} PARTITION {month} FINAL")
            changed += rewritten
        return changed

    def batches(self, id_: str, name: str) -> int:
        """Put the pseudonym in place of the user who sent a batch."""
        return self._update("batch_rows", {"user": quoted(name)}, f"user = {quoted(id_)}")

    def dimensions(self, id_: str) -> int:
        """Remove the user's own rows, and enrolments (``user_course``) that name the user."""
        own = f"type = '{DimensionType.USER}' AND id = {quoted(id_)}"
        enrolments = f"type = '{DimensionType.USER_COURSE}' AND ({holds('attributes', id_)} OR {self._names(id_)})"
        return self._delete("dimension_rows", f"({own}) OR ({enrolments})")

    def dimensions_naming(self, id_: str) -> int:
        """Return how many objects of other types name the user in their attributes: their source must change them."""
        if not is_long(id_):
            return 0
        ((count,),) = self._clickhouse.rows(
            f"SELECT count() FROM dimension_rows FINAL WHERE NOT deleted AND {holds('attributes', id_)}"  # noqa: S608
        )
        return int(count)

    def devices(self, id_: str, name: str) -> int:
        """Put the pseudonym into what devices reported, where the id is long enough to be known there."""
        if not is_long(id_):
            return 0
        rows = self._update("device_rows", {"value": replaced("value", id_, name)}, holds("value", id_))
        latest = f"(latest.1, latest.2, latest.3, latest.4, {replaced('latest.5', id_, name)})"
        self._update("device_latest_rows", {"latest": latest}, holds("latest.5", id_))
        return rows

    def assignments(self, user_id: int) -> int:
        """Remove a learner's records, and the learner as author of others'."""
        removed = self._delete("assignment_rows", f"user_id = {user_id}")
        return removed + self._update("assignment_rows", {"author": "0"}, f"author = {user_id}")

    def still_naming(self, id_: str) -> dict[str, int]:
        """Return how many rows of each table name the user still, as far as that can be told of a long id."""
        if not is_long(id_):
            return {}
        columns = {
            "events": ("raw", "user", "actor_id"),
            "rejects": ("raw", "message"),
            "device_history": ("value",),
            "dimensions": ("attributes", "id"),
        }
        found = {}
        for table, names in columns.items():
            where = " OR ".join(holds(column, id_) for column in names)
            ((count,),) = self._clickhouse.rows(f"SELECT count() FROM {table} WHERE {where}")  # noqa: S608 - quoted
            if count:
                found[table] = int(count)
        return found

    def _names(self, id_: str) -> str:
        return f"positionUTF8(id, {quoted(id_)}) > 0" if is_long(id_) else f"id = {quoted(id_)}"

    def _rewritten(self, places: Sequence[_Place], id_: str, name: str) -> pa.RecordBatch:
        keys = ", ".join(
            f"(fromUnixTimestamp64Milli({place.received_at_ms}, 'UTC'), {quoted(place.batch_id)}, {place.event_index})"
            for place in places
        )
        # As hexadecimal digits: a refused text may be no UTF-8.
        table = self._clickhouse.arrow(
            "SELECT * REPLACE (hex(raw) AS raw) FROM reject_rows FINAL "  # noqa: S608 - quoted
            f"WHERE (received_at, batch_id, event_index) IN ({keys})"
        )
        rows = [row | {"raw": bytes.fromhex(row["raw"])} for row in table.to_pylist()]
        place = table.schema.get_field_index("raw")
        schema = table.schema.set(place, pa.field("raw", pa.binary()))
        changed = [new for row in rows if (new := rewrite_reject(row, id_, name)) != row]
        return pa.RecordBatch.from_pylist(changed, schema=schema)

    def _insert(self, table: str, rows: pa.RecordBatch) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_batch(rows)
        body: bytes = sink.getvalue().to_pybytes()
        self._clickhouse.insert_stream(
            table, rows.schema.names, body, uuid.uuid4().hex, tries=_TRIES, before_try=lambda _: None
        )

    def _update(self, table: str, changes: dict[str, str], where: str) -> int:
        count = self._count(table, where)
        if count:
            listed = ", ".join(f"{column} = {value}" for column, value in changes.items())
            # Not a lightweight update, which would leave what was there on the disk.
            self._clickhouse.command(f"ALTER TABLE {table}{self._on_cluster} UPDATE {listed} WHERE {where}", _SYNC)
        return count

    def _delete(self, table: str, where: str) -> int:
        count = self._count(table, where)
        if count:
            self._clickhouse.command(f"ALTER TABLE {table}{self._on_cluster} DELETE WHERE {where}", _SYNC)
        return count

    def _count(self, table: str, where: str) -> int:
        ((count,),) = self._clickhouse.rows(f"SELECT uniqExact({_KEYS[table]}) FROM {table} WHERE {where}")  # noqa: S608 - quoted
        return int(count)


def _portions(places: Iterable[_Place]) -> Iterator[list[_Place]]:
    rest = iter(places)
    while portion := list(islice(rest, _REJECTS_A_QUERY)):
        yield portion
