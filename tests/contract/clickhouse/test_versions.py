"""Blocks of other versions on the real engine: a column more, a column less, and the same block in two versions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from midstream import topics
from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.columns import VALID
from midstream.erased import ErasedKey
from midstream.records import encode_record
from processors.attempts.lane import is_of_the_environment
from processors.lease import Lease
from processors.store import block as block_module
from processors.store import erased as erased_module
from processors.store.block import read_block
from processors.store.dedupe.cache import DedupeCache
from processors.store.dedupe.stored import StoredMids
from processors.store.dimension_cache import DimensionCache
from processors.store.erased import ErasedUsers
from processors.store.route import EVENT_TABLES
from processors.store.storer import Storer, StoreRecord
from tests.unit.store.rows import RECEIVED_AT_MS, event, sealed

KEY = ErasedKey(b"k" * 32)
LATER = VALID.append(pa.field("colour", pa.string()))
"""The columns of a later version."""


def block_of(*events: dict[str, Any], colours: Sequence[str | None] | None) -> bytes:
    """Return a block; with colours, as a later version seals it."""
    rows = read_block(sealed([(one, "b1", index) for index, one in enumerate(events)]))[0]
    if colours is not None:
        # A later version may also put its column where it likes.
        columns = [pa.array(colours, pa.string()), *rows.columns]
        rows = pa.RecordBatch.from_arrays(columns, names=["colour", *rows.schema.names])
        rows = rows.cast(pa.schema([LATER.field("colour"), *VALID]))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return encode_record(
        topics.VALID.name,
        {
            "rows": rows.num_rows,
            "partitions": 1,
            "oldest_received_at_ms": RECEIVED_AT_MS,
            "arrow": sink.getvalue().to_pybytes(),
        },
    )


def storer(clickhouse: ClickHouse, erased: ErasedUsers | None = None) -> Storer:
    dimensions = DimensionCache(clickhouse, 1_000, 1 << 20, 1_000)
    return Storer(clickhouse, dimensions, Lease(60_000), insert_tries=1, erased=erased)


def dedupe(clickhouse: ClickHouse) -> DedupeCache:
    made = DedupeCache(StoredMids(clickhouse), 1 << 20, 1_000)
    made.load([0], 1)
    return made


def record(value: bytes) -> StoreRecord:
    return StoreRecord(topics.VALID.name, 0, 0, RECEIVED_AT_MS, value)


def add_colour(clickhouse: ClickHouse) -> None:
    for table in EVENT_TABLES:
        clickhouse.command(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS colour String DEFAULT 'none'")


def colours(clickhouse: ClickHouse) -> list[tuple[Any, ...]]:
    tables = " UNION ALL ".join(f"SELECT mid, colour FROM {table}" for table in EVENT_TABLES)
    return [tuple(row) for row in clickhouse.rows(f"SELECT * FROM ({tables}) ORDER BY mid")]


BOTH = (event("a"), event("b", "LOG"))


def test_a_column_that_only_the_tables_know_has_its_default(clickhouse: ClickHouse) -> None:
    """An older store behind migrated tables."""
    add_colour(clickhouse)
    storer(clickhouse).store_valid([record(block_of(*BOTH, colours=None))], dedupe(clickhouse))
    assert colours(clickhouse) == [("a", "none"), ("b", "none")]
    assert clickhouse.rows("SELECT count() FROM events") == [(2,)]


def test_a_column_that_this_version_does_not_know_is_stored(clickhouse: ClickHouse) -> None:
    add_colour(clickhouse)
    value = block_of(*BOTH, event("c"), colours=["red", "green", None])
    storer(clickhouse).store_valid([record(value)], dedupe(clickhouse))
    assert colours(clickhouse) == [("a", "red"), ("b", "green"), ("c", "none")]


def test_a_column_that_the_tables_lack_is_waited_for(clickhouse: ClickHouse) -> None:
    """Validate was upgraded before the tables: nothing is stored without it, and nothing is parked."""
    value = block_of(*BOTH, colours=["red", "green"])
    one = storer(clickhouse)
    for _ in range(2):
        with pytest.raises(ClickHouseError, match="no column colour: run `midstream migrate`") as raised:
            one.store_valid([record(value)], dedupe(clickhouse))
        assert is_of_the_environment(raised.value)
    assert clickhouse.rows("SELECT (SELECT count() FROM events), (SELECT count() FROM rejects)") == [(0, 0)]
    clickhouse.command("ALTER TABLE learning_events ADD COLUMN colour String DEFAULT 'none'")
    with pytest.raises(ClickHouseError, match="no column colour"):
        one.store_valid([record(value)], dedupe(clickhouse))
    add_colour(clickhouse)
    one.store_valid([record(value)], dedupe(clickhouse))
    assert colours(clickhouse) == [("a", "red"), ("b", "green")]


def later_version(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (block_module, erased_module):
        monkeypatch.setattr(module, "VALID", LATER)


def test_what_an_older_block_lacks_has_its_default(clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer store, which knows the column, and reads what an older validate sealed."""
    add_colour(clickhouse)
    value = block_of(*BOTH, colours=None)
    later_version(monkeypatch)
    storer(clickhouse).store_valid([record(value)], dedupe(clickhouse))
    assert colours(clickhouse) == [("a", "none"), ("b", "none")]


def test_a_block_that_two_versions_store_is_there_once(clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither knows of the other: what keeps them from storing it twice is the token alone."""
    add_colour(clickhouse)
    expected: list[tuple[str, str]] = []
    for number, (is_first_newer, is_later) in enumerate(itertools.product((True, False), repeat=2)):
        mids = (f"{number}-a", f"{number}-b")
        value = block_of(event(mids[0]), event(mids[1], "LOG"), colours=["red", "green"] if is_later else None)
        caches = [dedupe(clickhouse), dedupe(clickhouse)]
        for cache, is_newer in zip(caches, (is_first_newer, not is_first_newer), strict=True):
            with monkeypatch.context() as patch:
                if is_newer:
                    later_version(patch)
                storer(clickhouse).store_valid([record(value)], cache)
        expected += zip(mids, ["red", "green"] if is_later else ["none", "none"], strict=True)
    assert colours(clickhouse) == expected
    assert clickhouse.rows("SELECT count(), uniqExact(mid) FROM events") == [(8, 8)]
    assert clickhouse.rows("SELECT count() FROM duplicates") == [(0,)]


def test_of_erased_users_nothing_is_stored_that_cannot_be_looked_into(clickhouse: ClickHouse) -> None:
    add_colour(clickhouse)
    users = ErasedUsers(lambda: KEY, 10)
    users.add([KEY.digest("user", "ann")])
    value = block_of(
        event("a", actor={"id": "ann", "type": "User"}),
        event("b", actor={"id": "bob", "type": "User"}),
        colours=["ann likes red", "bob likes blue"],
    )
    storer(clickhouse, users).store_valid([record(value)], dedupe(clickhouse))
    assert colours(clickhouse) == [("a", "none"), ("b", "bob likes blue")]


def test_a_worker_does_not_begin_before_the_tables_have_what_it_writes(
    clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    storer(clickhouse).check_tables()
    monkeypatch.setattr("processors.store.storer.VALID", LATER)
    with pytest.raises(ClickHouseError, match="no column colour: run `midstream migrate`"):
        storer(clickhouse).check_tables()
    add_colour(clickhouse)
    storer(clickhouse).check_tables()
