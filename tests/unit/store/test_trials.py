"""Blocks and dead letters that a worker failed at before, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from midstream import topics
from midstream.clickhouse.client import ClickHouse
from midstream.records import encode_record
from midstream.settings import Settings
from processors.attempts import Attempts
from processors.lease import Lease
from processors.store import storer as storer_module
from processors.store import verdicts
from processors.store.block import mid_hashes
from processors.store.dedupe.cache import DedupeCache
from processors.store.dedupe.recent import Arrival
from processors.store.dimension_cache import Entry
from processors.store.storer import Storer, StoreRecord
from processors.store.trials import try_block
from tests.unit.store.rows import RECEIVED_AT_MS, block, event, sealed

NOW_MS = RECEIVED_AT_MS + 1_000
TRIES = 2


class Trial:
    def __init__(self, *parked: int, is_whole: bool = False, suspected: range = range(0)) -> None:
        self.parked, self.is_whole, self.suspected = parked, is_whole, suspected
        self.message = "what happened"
        self.seen: list[tuple[int, int]] = []

    def at(self, index: int, size: int = 1) -> None:
        self.seen.append((index, size))

    def is_suspected(self, start: int, end: int) -> bool:
        return any(index in self.suspected for index in range(start, end))

    def times_parked(self, index: int) -> int:
        return self.parked.count(index)


class Steps:
    def __init__(self, **stored: Arrival) -> None:
        self.stored = stored
        self.tried: list[str] = []

    def find(self, wanted: list[tuple[int, str]]) -> dict[str, Arrival]:
        return {mid: self.stored[mid] for _, mid in wanted if mid in self.stored}

    def try_new(self, row: pa.RecordBatch) -> None:
        self.tried += row.column("mid").to_pylist()

    def differs(self, block: pa.RecordBatch, found: list[tuple[int, Arrival]]) -> list[bool]:
        self.tried += [f"{first.mid} again" for _, first in found]
        return [False]


def arrival(mid: str, batch_id: str, index: int) -> Arrival:
    return Arrival(mid, batch_id, index, RECEIVED_AT_MS, 7)


ROWS = block([("new", "b1", 0), ("bad", "b1", 1), ("replay", "b1", 2), ("twice", "b1", 3), ("bad twice", "b1", 4)])
STORED = {
    "replay": arrival("replay", "b1", 2),
    "twice": arrival("twice", "b0", 9),
    "bad twice": arrival("bad twice", "b0", 8),
}


def test_each_row_is_tried_and_the_parked_ones_are_taken_out() -> None:
    trial, steps = Trial(1, 4), Steps(**STORED)
    outcome = try_block(ROWS, mid_hashes(ROWS), trial, steps, NOW_MS)
    assert trial.seen == [(1, 1), (4, 1), (0, 4), (-1, 1)]
    assert steps.tried == ["new", "twice again"]
    assert outcome.kept == [0, 2, 3]
    ((poison),) = outcome.rejects
    assert (poison["mid"], poison["code"], poison["scope"], poison["event_index"]) == ("bad", "POISON", "event", 1)
    assert (poison["message"], poison["events"]) == ("what happened", 1)
    ((duplicate),) = outcome.duplicates
    assert (duplicate["mid"], duplicate["first_batch_id"], duplicate["differs"]) == ("bad twice", "b0", True)


def test_many_rows_are_tried_together_and_those_under_suspicion_one_by_one() -> None:
    rows = block([(f"m{n}", "b1", n) for n in range(200)])
    trial, steps = Trial(suspected=range(70, 134)), Steps()
    outcome = try_block(rows, mid_hashes(rows), trial, steps, NOW_MS)
    assert trial.seen == [(0, 64), *((row, 1) for row in range(64, 192)), (192, 8), (-1, 1)]
    assert steps.tried == [f"m{n}" for n in range(200)]
    assert outcome.kept == list(range(200))


def test_of_a_whole_block_what_is_not_stored_is_parked() -> None:
    steps = Steps(**STORED)
    outcome = try_block(ROWS, mid_hashes(ROWS), Trial(is_whole=True), steps, NOW_MS)
    assert (outcome.kept, steps.tried) == ([], [])
    assert [row["mid"] for row in outcome.rejects] == ["new", "bad"]
    assert [row["mid"] for row in outcome.duplicates] == ["twice", "bad twice"]


class Connection(ClickHouse):
    """Takes inserts and keeps their rows."""

    def __init__(self) -> None:
        self.is_cluster = False
        self.tables: dict[str, list[dict[str, Any]]] = {}

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> Any:
        return []

    def dropped_inserts(self) -> tuple[int, int] | None:
        return 0, 0

    def insert_stream(self, table: str, columns: Any, body: Sequence[bytes | memoryview], token: str, **_: Any) -> None:
        with pa.ipc.open_stream(b"".join(body)) as reader:
            self.tables.setdefault(table, []).extend(reader.read_all().to_pylist())


class Dimensions:
    def get(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[list[Entry]]:
        return [[Entry("", -1)] * len(ids) for _, ids in wanted]


class Stored:
    """What the inserts of a connection stored."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, wanted: Any) -> dict[str, Arrival]:
        rows = [row for table, rows in self._connection.tables.items() if "reject" not in table for row in rows]
        found = {
            row["mid"]: Arrival(row["mid"], row["batch_id"], row["event_index"], RECEIVED_AT_MS, row["content_hash"])
            for row in rows
            if "content_hash" in row
        }
        return {mid: found[mid] for _, mid in wanted if mid in found}


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def storer(connection: Connection) -> Storer:
    return Storer(
        connection,
        Dimensions(),  # type: ignore[arg-type]
        Lease(10_000),
        1,
        stored=Stored(connection),
        attempts=Attempts.in_memory(TRIES),
        clock_ms=lambda: NOW_MS,
    )


def cache(connection: Connection) -> DedupeCache:
    settings = Settings()
    found = DedupeCache(Stored(connection), settings.dedupe_memory_bytes, settings.dedupe_recent)  # type: ignore[arg-type]
    found.partitions, found.of = frozenset({0}), 1
    return found


def mids(connection: Connection) -> dict[str, list[str]]:
    return {table: sorted(row["mid"] for row in rows) for table, rows in connection.tables.items() if rows}


def test_blocks_that_fail_are_stored_without_the_event_at_fault(
    storer: Storer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = storer_module.denormalise

    def fail(rows: pa.RecordBatch, lookup: Any) -> Any:
        if "bad" in rows.column("mid").to_pylist():
            raise ArithmeticError("no such number")
        return original(rows, lookup)

    monkeypatch.setattr(storer_module, "denormalise", fail)
    records = [
        StoreRecord(topics.VALID.name, 0, offset, NOW_MS, sealed([(event(mid), f"b{offset}", i) for i, mid in pairs]))
        for offset, pairs in enumerate(([(0, "a")], [(0, "b"), (1, "bad"), (2, "c")], [(0, "d")]))
    ]
    tries = storer.valid_tries
    for _ in range(TRIES + 1):  # at the second try it is one of several rows
        with pytest.raises(ArithmeticError) as raised:
            storer.store_valid(records, cache(connection))
        tries.failed(raised.value)
        tries._begun.clear()  # as in the next life
        tries._attempts.closed = False
    storer.store_valid(records, cache(connection))
    assert mids(connection)["reject_rows"] == ["bad"]
    (table,) = (name for name in connection.tables if name != "reject_rows")
    assert set(mids(connection)[table]) == {"a", "b", "c", "d"}
    ((reject),) = connection.tables["reject_rows"]
    assert reject["message"] == "ArithmeticError: no such number"


def until_it_passes(storer: Storer, records: list[StoreRecord], connection: Connection, lives: int) -> int:
    """Store records, life after life; return how many ended."""
    tries = storer.valid_tries
    for life in range(lives):
        try:
            storer.store_valid(records, cache(connection))
        except ArithmeticError as error:
            tries.failed(error)
            tries._begun.clear()  # as in the next life
            tries._attempts.closed = False
        else:
            return life
    raise AssertionError(f"not within {lives} lives")


PAIRS = ({"m3", "m9"}, {"m70", "m80"})
"""Rows that fail when they are worked on together; each pair in a group of its own."""


@pytest.mark.parametrize("in_all", [False, True], ids=["but all together pass", "and so do all together"])
def test_rows_that_fail_only_together_do_not_hold_their_partition(
    storer: Storer, connection: Connection, monkeypatch: pytest.MonkeyPatch, in_all: bool
) -> None:
    original = storer_module.denormalise
    begun = 0

    def fail(rows: pa.RecordBatch, lookup: Any) -> Any:
        nonlocal begun
        begun += 1
        mids_here = set(rows.column("mid").to_pylist())
        # The first time it is the whole block, or nothing would be tried in groups.
        if any(pair <= mids_here for pair in PAIRS) and (rows.num_rows <= 64 or in_all or begun == 1):
            raise ArithmeticError
        return original(rows, lookup)

    monkeypatch.setattr(storer_module, "denormalise", fail)
    blocks = [[f"m{n}" for n in range(130)], ["after"]]
    records = [
        StoreRecord(
            topics.VALID.name, 0, offset, NOW_MS, sealed([(event(m), f"b{offset}", n) for n, m in enumerate(b)])
        )
        for offset, b in enumerate(blocks)
    ]
    assert until_it_passes(storer, records, connection, 10) <= TRIES + 2
    stored = mids(connection)
    parked = stored.pop("reject_rows", [])
    (kept,) = stored.values()
    assert sorted([*kept, *parked]) == sorted(mid for mids_ in blocks for mid in mids_)
    assert set(parked) == (set(blocks[0]) if in_all else set())


def test_dead_letters_that_fail_are_kept_as_they_are(
    storer: Storer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = verdicts.reject_row

    def fail(letter: verdicts.Letter, now_ms: int) -> Any:
        if letter["mid"] == "bad":
            raise ArithmeticError
        return original(letter, now_ms)

    monkeypatch.setattr(verdicts, "reject_row", fail)
    letter = {
        "scope": "event",
        "code": "UNKNOWN_EID",
        "pointer": "/eid",
        "message": "m",
        "mid": "",
        "eid": "",
        "did": "",
        "channel": "",
        "batch_id": "b",
        "event_index": 0,
        "received_at_ms": NOW_MS,
        "raw": b"{}",
        "raw_encoding": "identity",
        "events": 1,
    }
    letters = [letter | {"mid": mid, "event_index": index} for index, mid in enumerate(("a", "bad", "c"))]
    record = StoreRecord(topics.DEAD.name, 0, 5, NOW_MS, encode_record(topics.DEAD.name, {"letters": letters}))
    tries = storer.dead_tries
    for _ in range(TRIES + 1):
        try:
            storer.store_dead([record])
        except ArithmeticError as error:
            tries.failed(error)
            tries._begun.clear()
            tries._attempts.closed = False
    rows = connection.tables["reject_rows"]
    assert [(row["mid"], row["code"]) for row in rows] == [
        ("a", "UNKNOWN_EID"),
        ("bad", "POISON"),
        ("c", "UNKNOWN_EID"),
    ]
    assert (rows[1]["raw"], rows[1]["event_index"]) == (b"{}", 1)
