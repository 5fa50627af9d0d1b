"""ClickHouse in memory, as far as ``store`` relies on it, with every way in which an insert can end.

:class:`FakeConnection` takes the place of clickhouse_connect's client under the real
:class:`midstream.clickhouse.client.ClickHouse`, so that the retries of the real adapter are what is tested.
"""

from __future__ import annotations

import enum
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError as DriverError

from midstream.clickhouse.client import ClickHouse, Dsn
from processors.store.dedupe.history import Hashes
from processors.store.dedupe.recent import Arrival
from processors.store.dedupe.stored import StoredMids
from processors.store.route import EVENT_TABLES

REFUSED_MARK = '"refused":true'
"""An event whose text holds this is refused by the event tables, for its data."""

_TYPE_MISMATCH = 53
_COLUMNS = ("mid", "eid", "batch_id", "event_index", "received_at")
_EVENT_COLUMNS = (*_COLUMNS, "mid_hash", "content_hash", "raw")


class Crash(BaseException):
    """The worker's process is gone at this point; nothing in it may answer this."""


class DataRefusedError(DriverError):
    """What the driver raises when ClickHouse refuses the rows themselves."""

    code = _TYPE_MISMATCH


class Outcome(enum.Enum):
    """How one try of an insert ends."""

    OK = "ok"
    AWAY = "refused before it arrived"
    TORN = "the engine noted the token and died before the rows"
    RESTART = "the engine was restarted just before it arrived"
    LOST = "arrived, the answer was lost"
    CRASH_BEFORE = "the worker died before it was sent"
    CRASH_AFTER = "arrived, and the worker died"
    HOLD_UNSENT = "the worker stands still before the lease is checked"
    HOLD_SENT = "the worker stands still after the lease was checked"


class FakeEngine:
    """Tables, and for each the last ``window`` deduplication tokens."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._tokens: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)
        self.tables: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.dropped = 0
        self.starts = 0
        self.inserts: Counter[str] = Counter()
        """Tokens noted, by table: each moves the window by one."""

    @property
    def window(self) -> int:
        return self._window

    def insert(
        self, table: str, columns: Sequence[str], body: bytes, settings: dict[str, Any], *, is_torn: bool = False
    ) -> None:
        """Insert an Arrow stream: all rows, or none because of its token, or none because of its data."""
        assert settings["async_insert"] == 0
        with pa.ipc.open_stream(body) as reader:
            rows = reader.read_all()
        assert rows.schema.names == list(columns)
        is_event = table in EVENT_TABLES
        if is_event and any(REFUSED_MARK in raw for raw in rows.column("raw").to_pylist()):
            raise DataRefusedError("type mismatch")
        if settings["insert_deduplicate"] and not self.note_token(table, settings["insert_deduplication_token"]):
            return
        if is_torn:
            self.restart()
            return
        names = _EVENT_COLUMNS if is_event else columns
        self.tables[table] += rows.select(list(names)).to_pylist()

    def restart(self) -> None:
        """Begin anew with what is on the disk: what the engine counts begins at 0."""
        self.dropped = 0
        self.starts += 1

    def note_token(self, table: str, token: str) -> bool:
        """Note the token of an insert; return whether it is new."""
        tokens = self._tokens[table]
        if token in tokens:
            self.dropped += 1
            return False
        tokens[token] = None
        if len(tokens) > self._window:
            tokens.popitem(last=False)
        self.inserts[table] += 1
        return True

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield all stored events."""
        for table in EVENT_TABLES:
            yield from self.tables[table]


class FakeConnection:
    """One worker's client of a :class:`FakeEngine`."""

    def __init__(self, engine: FakeEngine, before_insert: Callable[[str], None]) -> None:
        self._engine = engine
        self._before_insert = before_insert
        self.plan: deque[Outcome] = deque()
        """How the next inserts end; beyond it all is well."""
        self.hold: Callable[[], None] = lambda: None
        """Returns when a worker that stands still is woken."""

    def clickhouse(self) -> ClickHouse:
        return ClickHouse(self, Dsn("http", "fake", 8123, "", "", ""))  # type: ignore[arg-type]

    def before_lease_check(self) -> None:
        if self.plan and self.plan[0] is Outcome.HOLD_UNSENT:
            self.plan.popleft()
            self.hold()

    def raw_insert(
        self,
        table: None,
        columns: None,
        pieces: Sequence[bytes | memoryview],
        settings: dict[str, Any],
        *,
        transport_settings: dict[str, str],
    ) -> None:
        statement, body = bytes(pieces[0]), b"".join(pieces[1:])
        into = re.fullmatch(rb"INSERT INTO (\w+) \((.*)\) FORMAT ArrowStream\n", statement)
        assert into is not None
        assert transport_settings == {"Content-Length": str(len(statement) + len(body))}
        self._insert(into[1].decode(), [name.strip("`") for name in into[2].decode().split(", ")], body, settings)

    def _insert(self, table: str, columns: Sequence[str], body: bytes, settings: dict[str, Any]) -> None:
        outcome = self.plan.popleft() if self.plan else Outcome.OK
        if outcome is Outcome.AWAY:
            raise ConnectionRefusedError("away")
        if outcome is Outcome.CRASH_BEFORE:
            raise Crash
        if outcome is Outcome.HOLD_SENT:
            self.hold()
        else:
            self._before_insert(table)
        if outcome is Outcome.RESTART:
            self._engine.restart()
        self._engine.insert(table, columns, body, settings, is_torn=outcome is Outcome.TORN)
        if outcome in (Outcome.LOST, Outcome.TORN):
            raise TimeoutError("no answer")
        if outcome is Outcome.CRASH_AFTER:
            raise Crash

    def query(self, sql: str, parameters: dict[str, Any], settings: dict[str, Any]) -> SimpleNamespace:
        """Answer the queries that the storer itself makes: blocks dropped by token, and the texts of stored mids."""
        if "system.events" in sql:
            return SimpleNamespace(result_rows=[(self._engine.dropped, self._engine.starts)])
        assert "FROM events WHERE mid IN" in sql
        wanted = set(parameters["mids"])
        return SimpleNamespace(
            result_rows=[(row["mid"], row["raw"]) for row in self._engine.events() if row["mid"] in wanted]
        )


class FakeStoredMids(StoredMids):
    """Answers what :class:`StoredMids` asks ClickHouse; the queries themselves have their contract tests."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine

    def count(self) -> int:
        return sum(len(self._engine.tables[table]) for table in EVENT_TABLES)

    def hashes(self, partitions: Sequence[int], of: int) -> Iterator[Hashes]:
        for table in EVENT_TABLES:
            held = [row["mid_hash"] for row in self._engine.tables[table] if row["mid_hash"] % of in partitions]
            yield np.array(held, dtype=np.uint64)

    def find(self, wanted: Sequence[tuple[int, str]]) -> dict[str, Arrival]:
        pairs = set(wanted)
        return {row["mid"]: arrival_of(row) for row in self._engine.events() if (row["mid_hash"], row["mid"]) in pairs}


def arrival_of(row: dict[str, Any]) -> Arrival:
    """Return the arrival that a stored event came with."""
    received_at_ms = int(row["received_at"].timestamp() * 1000)
    return Arrival(row["mid"], row["batch_id"], row["event_index"], received_at_ms, row["content_hash"])
