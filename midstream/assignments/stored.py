"""What ClickHouse knows of records: each as it is now, an academy's of an asset, how its learners do. Blocks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

from midstream.assignments.fields import FIELDS, Value
from midstream.assignments.record import Version
from midstream.assignments.rows import VALUE_COLUMNS, PlacedWrite, RecordKey, Write, names_of

Rows = Callable[[str, dict[str, Any] | None], Sequence[tuple[Any, ...]]]
"""Runs a query; raises ClickHouseError."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_COLUMNS = f"""academy_id, asset_slug, user_id, version, toUnixTimestamp64Micro(written_at), given, computed,
{", ".join(VALUE_COLUMNS)}"""

# The newest writes of each record.
_NEWEST = f"""SELECT {_COLUMNS} FROM assignment_rows WHERE (academy_id, asset_slug, user_id) IN @keys
ORDER BY version DESC LIMIT {{most:UInt64}} BY academy_id, asset_slug, user_id"""  # noqa: S608 - constants

# Of the writes that gave and computed the same fields the newest: no other one counts. They are sought first, as a
# telemetry can have a megabyte.
_COUNTING = f"""SELECT {_COLUMNS} FROM assignment_rows WHERE (academy_id, asset_slug, user_id, version) IN
(SELECT academy_id, asset_slug, user_id, max(version) FROM assignment_rows
WHERE (academy_id, asset_slug, user_id) IN @keys
GROUP BY academy_id, asset_slug, user_id, given, computed)"""  # noqa: S608 - constants

_SHORT = 16
"""Writes of a record up to which all are read at once, which takes half the time."""

_MAX_LONG = 20_000
_KEYS_A_QUERY = 50
_CHARACTERS_A_QUERY = 16_384  # of slugs: the parameters of a query travel in its URL

LISTED = (
    "user_id",
    "id",
    "engagement_score",
    "frustration_score",
    "completion_rate",
    "metrics_algo_version",
    "total_time",
    "metrics",
    "created_at",
    "updated_at",
)
"""Columns of a list; the moments are microseconds since 1970."""

SORTED_BY = {
    "user": "user_id",
    **{name: name for name in ("id", *FIELDS[2:6], "created_at", "updated_at")},
    "total_time": "total_time_s",
}
"""What a list can be sorted by, and the column that does it."""

_LIST = f"""SELECT {", ".join(LISTED[:-2])}, toUnixTimestamp64Micro(created_at), toUnixTimestamp64Micro(updated_at)
FROM assignment_telemetry WHERE academy_id = {{academy:Int64}} AND asset_slug = {{asset:String}}
ORDER BY @order LIMIT {{limit:UInt64}} OFFSET {{offset:UInt64}}"""  # noqa: S608 - constants

_COUNT = """SELECT uniqExact(user_id) FROM assignment_rows
WHERE academy_id = {academy:Int64} AND asset_slug = {asset:String}"""


def _mean(column: str) -> str:
    """Return the mean of a column, whatever the order in which its rows are added up."""
    return f"avg(toDecimal128({column}, 9))"


_ASSETS = f"""SELECT asset_slug, count(), countIf(completion_rate >= 100), {_mean("completion_rate")},
{_mean("engagement_score")}, {_mean("frustration_score")} FROM assignment_telemetry
WHERE academy_id = {{academy:Int64}} AND asset_slug > {{after:String}}
AND ({{asset:String}} = '' OR asset_slug = {{asset:String}})
GROUP BY asset_slug ORDER BY asset_slug LIMIT {{limit:UInt64}}"""  # noqa: S608 - constants

_STEPS = """SELECT asset_slug, step_slug, min(position) AS place, countIf(opened), countIf(completed),
countIf(opened AND NOT completed), countIf(skipped), avgIf(toNullable(compilation_struggles), opened),
avgIf(toNullable(test_struggles), opened),
avgIf(toDecimal128(toNullable(seconds), 6), opened)
FROM assignment_steps WHERE academy_id = {academy:Int64} AND asset_slug IN {assets:Array(String)}
GROUP BY asset_slug, step_slug ORDER BY asset_slug, place, step_slug"""

_WRITTEN = f"""SELECT batch, academy_id, asset_slug, user_id, version, id, author, toUnixTimestamp64Micro(written_at),
toUnixTimestamp64Micro(created_at), given, computed, {", ".join(VALUE_COLUMNS)}
FROM assignment_rows FINAL WHERE writer = {{writer:String}} AND batch IN
(SELECT DISTINCT batch FROM assignment_rows WHERE writer = {{writer:String}} AND batch > {{after:UInt64}}
ORDER BY batch LIMIT {{inserts:UInt64}}) ORDER BY batch, academy_id, asset_slug, user_id, version"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class StepReport:
    """How learners do in a step."""

    slug: str
    position: int
    opened: int
    completed: int
    stuck: int
    """Learners who opened it and have not completed it."""
    skipped: int
    compilation_struggles: float | None
    """Failed compilations of a learner who opened it, on average; None when nobody has."""
    test_struggles: float | None
    seconds: float | None
    """Time of a learner who opened it, on average."""


@dataclass(frozen=True, slots=True)
class AssetReport:
    """How an academy's learners do with an asset. Means are None where no learner has the value."""

    asset_slug: str
    learners: int
    completed: int
    completion_rate: float | None
    engagement_score: float | None
    frustration_score: float | None
    steps: Sequence[StepReport]


class RecordReader:
    """Reads records, and remembers which of them have many writes. Threads may share it."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._long: OrderedDict[RecordKey, None] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, keys: Collection[RecordKey]) -> dict[RecordKey, list[Version]]:
        """Return of each of these records the writes that count, in one query where few; without writes: left out.

        Raises:
            ClickHouseError: they cannot be read now.
        """
        found: dict[RecordKey, list[Version]] = {}
        with self._lock:
            long = [key for key in keys if key in self._long]
            short = [key for key in keys if key not in self._long]
        for part in _parts(short):
            found |= self._read(_NEWEST, part)
        more = [key for key in short if len(found.get(key, ())) >= _SHORT]
        self._remember(more)
        for part in _parts([*long, *more]):
            found |= self._read(_COUNTING, part)
        return found

    def _read(self, query: str, keys: Sequence[RecordKey]) -> dict[RecordKey, list[Version]]:
        names = [f"({{a{n}:Int64}}, {{s{n}:String}}, {{u{n}:Int64}})" for n in range(len(keys))]
        parameters: dict[str, Any] = {"most": _SHORT}
        for number, key in enumerate(keys):
            parameters |= {f"a{number}": key.academy_id, f"s{number}": key.asset_slug, f"u{number}": key.user_id}
        versions: dict[RecordKey, list[Version]] = {}
        rows: Any = self._rows(query.replace("@keys", f"({', '.join(names)})"), parameters)
        for academy_id, asset_slug, user_id, version, at_us, given, computed, *values in rows:
            of_record = versions.setdefault(RecordKey(academy_id, asset_slug, user_id), [])
            of_record.append(Version(version, _moment(at_us), names_of(given), names_of(computed), _values(values)))
        return versions

    def _remember(self, keys: Iterable[RecordKey]) -> None:
        with self._lock:
            for key in keys:
                self._long[key] = None
            while len(self._long) > _MAX_LONG:
                self._long.popitem(last=False)


def _parts(keys: Iterable[RecordKey]) -> Iterator[list[RecordKey]]:
    """Yield keys in parts whose query has a bounded length."""
    part: list[RecordKey] = []
    characters = 0
    for key in keys:
        if part and (len(part) == _KEYS_A_QUERY or characters + len(key.asset_slug) > _CHARACTERS_A_QUERY):
            yield part
            part, characters = [], 0
        part.append(key)
        characters += len(key.asset_slug)
    if part:
        yield part


def _values(columns: Iterable[Any]) -> dict[str, Value]:
    return {
        name: value.encode() if isinstance(value, str) else value for name, value in zip(FIELDS, columns, strict=True)
    }


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def read_page(
    rows: Rows, academy_id: int, asset_slug: str, *, sort: str, descending: bool, limit: int, offset: int
) -> list[dict[str, Any]]:
    """Return some of an academy's records of an asset, by the columns :data:`LISTED`.

    Args:
        rows: runs a query.
        academy_id: the academy.
        asset_slug: the asset.
        sort: one of :data:`SORTED_BY`; records that have no such value come last, equal ones by user.
        descending: from the highest value down.
        limit: most records.
        offset: records before them.

    Raises:
        ClickHouseError: they cannot be read now.
    """
    order = f"{SORTED_BY[sort]} {'DESC' if descending else 'ASC'} NULLS LAST, user_id"
    parameters = {"academy": academy_id, "asset": asset_slug, "limit": limit, "offset": offset}
    return [dict(zip(LISTED, row, strict=True)) for row in rows(_LIST.replace("@order", order), parameters)]


def count_records(rows: Rows, academy_id: int, asset_slug: str) -> int:
    """Return how many records an academy has of an asset.

    Raises:
        ClickHouseError: it cannot be told now.
    """
    return int(rows(_COUNT, {"academy": academy_id, "asset": asset_slug})[0][0])


def read_report(rows: Rows, academy_id: int, *, asset_slug: str = "", after: str = "", limit: int) -> list[AssetReport]:
    """Return how an academy's learners do, asset by asset in the order of their slugs.

    Args:
        rows: runs a query.
        academy_id: the academy.
        asset_slug: only this asset; "": all.
        after: assets whose slugs come after it.
        limit: most assets.

    Raises:
        ClickHouseError: it cannot be told now.
    """
    assets = rows(_ASSETS, {"academy": academy_id, "asset": asset_slug, "after": after, "limit": limit})
    if not assets:
        return []
    found = rows(_STEPS, {"academy": academy_id, "assets": [row[0] for row in assets]})
    steps = {asset: [StepReport(*row[1:]) for row in of_asset] for asset, of_asset in groupby(found, itemgetter(0))}
    return [
        AssetReport(asset_slug, *counts, steps=steps.get(asset_slug, []))  # type: ignore[misc]
        for asset_slug, *counts in assets
    ]


def read_written(rows: Rows, writer: str, *, after: int, inserts: int) -> list[tuple[int, PlacedWrite]]:
    """Return what a life of a process wrote in so many of its inserts after one of them, each with its insert's number.

    The steps are left out.

    Raises:
        ClickHouseError: it cannot be read now.
    """
    found: Any = rows(_WRITTEN, {"writer": writer, "after": after, "inserts": inserts})
    writes: list[tuple[int, PlacedWrite]] = []
    for batch, academy_id, asset_slug, user_id, version, id_, author, *facts in found:
        at_us, created_us, given, computed, *columns = facts
        values = _values(columns)
        write = Write(
            RecordKey(academy_id, asset_slug, user_id),
            author,
            {name: values[name] for name in names_of(given)},
            {name: values[name] for name in names_of(computed)},
        )
        writes.append((batch, PlacedWrite(write, id_, version, _moment(at_us), _moment(created_us))))
    return writes
