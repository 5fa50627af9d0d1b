"""What exactness rests on in ClickHouse: tokens, refusals of data, retries."""

from __future__ import annotations

import pyarrow as pa
import pytest

from midstream.clickhouse.client import ClickHouse, ClickHouseError
from processors.lease import Lease
from processors.store.dedupe.cache import DedupeCache
from processors.store.dedupe.stored import StoredMids
from processors.store.dimension_cache import DimensionCache
from processors.store.storer import Storer, StoreRecord
from tests.unit.store.rows import event, sealed


def storer(clickhouse: ClickHouse) -> Storer:
    return Storer(clickhouse, DimensionCache(clickhouse, 100, 1 << 20, 1_000), Lease(60_000), insert_tries=2)


def cache(clickhouse: ClickHouse) -> DedupeCache:
    made = DedupeCache(StoredMids(clickhouse), 1 << 20, 1_000)
    made.load([0], 1)
    return made


def record(value: bytes, offset: int = 0) -> StoreRecord:
    return StoreRecord("telemetry.valid", 0, offset, 1_790_000_000_000, value)


def count(clickhouse: ClickHouse, name: str) -> int:
    return int(clickhouse.rows(f"SELECT count() FROM {name}")[0][0])


def test_a_record_stored_again_by_whoever_is_stored_once(clickhouse: ClickHouse) -> None:
    one = record(sealed([(event(f"m{n}", "LOG" if n % 3 else "START"), "b1", n) for n in range(50)]))
    known = cache(clickhouse)
    storer(clickhouse).store_valid([one], known)
    storer(clickhouse).store_valid([one], known)  # read again
    storer(clickhouse).store_valid([one], cache(clickhouse))  # after a restart
    zombie = DedupeCache(StoredMids(clickhouse), 1 << 20, 1_000)  # decided before the first was stored
    zombie.of = 1
    storer(clickhouse).store_valid([one], zombie)
    assert count(clickhouse, "events") == 50
    assert count(clickhouse, "duplicates") == 0


def test_a_resend_is_a_duplicate_whether_the_cache_is_fresh_or_not(clickhouse: ClickHouse) -> None:
    first = record(sealed([(event("a"), "b1", 0)]))
    known = cache(clickhouse)
    storer(clickhouse).store_valid([first], known)
    storer(clickhouse).store_valid([record(sealed([(event("a"), "b2", 4)]), 1)], known)
    other = event("a", edata={"type": "TOUCH", "id": "another"})
    storer(clickhouse).store_valid([record(sealed([(other, "b3", 0)]), 2)], cache(clickhouse))
    rows = clickhouse.rows("SELECT batch_id, event_index, first_batch_id, differs FROM duplicates ORDER BY batch_id")
    assert [tuple(row) for row in rows] == [("b2", 4, "b1", False), ("b3", 0, "b1", True)]
    assert count(clickhouse, "events") == 1


def test_a_block_spread_over_another_number_of_partitions_is_looked_up(clickhouse: ClickHouse) -> None:
    storer(clickhouse).store_valid([record(sealed([(event("a"), "b1", 0)]))], cache(clickhouse))
    elsewhere = DedupeCache(StoredMids(clickhouse), 1 << 20, 1_000)
    elsewhere.load([], 8)
    storer(clickhouse).store_valid([record(sealed([(event("a"), "b2", 0)]), 1)], elsewhere)
    assert (count(clickhouse, "events"), count(clickhouse, "duplicates")) == (1, 1)


def test_a_row_that_clickhouse_refuses_is_parked_and_its_neighbours_are_stored(clickhouse: ClickHouse) -> None:
    clickhouse.command("ALTER TABLE learning_events ADD CONSTRAINT no_poison CHECK mid != 'poison'")
    arrivals = [(event(f"m{n}"), "b1", n) for n in range(7)]
    arrivals.insert(3, (event("poison"), "b1", 7))
    value = sealed(arrivals)
    storer(clickhouse).store_valid([record(value)], cache(clickhouse))
    assert count(clickhouse, "events") == 7
    ((mid, code, index, raw),) = clickhouse.rows("SELECT mid, code, event_index, raw FROM rejects")
    assert (mid, code, index) == ("poison", "POISON", 7)
    assert '"poison"' in (raw if isinstance(raw, str) else raw.decode())
    storer(clickhouse).store_valid([record(value)], cache(clickhouse))
    assert (count(clickhouse, "events"), count(clickhouse, "rejects")) == (7, 1)


def test_halves_of_what_is_left_after_a_crash_meet_no_used_token(clickhouse: ClickHouse) -> None:
    """Rows a b c were stored before the crash; what is left is d, poison, e."""
    clickhouse.command("ALTER TABLE learning_events ADD CONSTRAINT no_poison CHECK mid != 'poison'")
    arrivals = [(event(mid), "b1", n) for n, mid in enumerate(["a", "b", "c", "d", "poison", "e"])]
    value = sealed(arrivals)
    broken = storer(clickhouse)
    real, calls = broken._clickhouse.insert_stream, []

    class DyingError(Exception):
        pass

    def insert_and_die(table: str, *args: object, **kwargs: object) -> None:
        real(table, *args, **kwargs)  # type: ignore[arg-type]
        calls.append(table)
        raise DyingError  # the first half is stored, and the process is gone

    broken._clickhouse.insert_stream = insert_and_die  # type: ignore[method-assign, assignment]
    with pytest.raises(DyingError):
        broken.store_valid([record(value)], cache(clickhouse))
    broken._clickhouse.insert_stream = real  # type: ignore[method-assign]
    assert 0 < count(clickhouse, "events") < 5
    storer(clickhouse).store_valid([record(value)], cache(clickhouse))
    stored = sorted(row[0] for row in clickhouse.rows("SELECT mid FROM events"))
    assert stored == ["a", "b", "c", "d", "e"]
    assert count(clickhouse, "rejects") == 1


def test_a_token_that_is_known_without_its_rows_loses_nothing(clickhouse: ClickHouse) -> None:
    """As after an engine's death between noting a token and committing the part: the token stays, the rows do not."""
    values = [
        sealed([(event(f"{block}-{n}", "LOG" if n % 2 else "START"), f"b{block}", n) for n in range(6)])
        for block in range(3)
    ]
    records = [record(value, offset) for offset, value in enumerate(values)]
    storer(clickhouse).store_valid(records, cache(clickhouse))
    for table in ("learning_events", "operational_events"):
        clickhouse.command(f"ALTER TABLE {table} DELETE WHERE batch_id != 'b0' SETTINGS mutations_sync = 1")
    assert count(clickhouse, "events") == 6
    for _ in range(3):  # and as often as it happens
        known = cache(clickhouse)
        known.saw_end(0, 3)  # all of them were there when the worker came
        storer(clickhouse).store_valid(records, known)
        assert count(clickhouse, "events") == 18
        assert int(clickhouse.rows("SELECT uniqExact(mid) FROM events")[0][0]) == 18
        clickhouse.command("ALTER TABLE learning_events DELETE WHERE batch_id = 'b2' SETTINGS mutations_sync = 1")
    assert count(clickhouse, "duplicates") == 0


def test_an_insert_that_was_tried_twice_is_looked_for(clickhouse: ClickHouse) -> None:
    """The first try notes the token and fails; the second is dropped as known."""
    writer = storer(clickhouse)
    known = cache(clickhouse)
    writer.store_valid([record(sealed([(event("before"), "b0", 0)]))], known)  # proves the partition
    client = writer._clickhouse._client
    raw_insert = client.raw_insert
    failed = []

    def fail_after_the_token(_: None, columns: None, pieces: list[bytes], *args: object, **kwargs: object) -> None:
        raw_insert(None, columns, pieces, *args, **kwargs)
        if not failed:
            table = pieces[0].split()[2].decode()
            failed.append(table)
            clickhouse.command(f"ALTER TABLE {table} DELETE WHERE mid = 'a' SETTINGS mutations_sync = 1")
            raise OSError("connection reset")

    client.raw_insert = fail_after_the_token  # type: ignore[method-assign, assignment]
    try:
        writer.store_valid([record(sealed([(event("a"), "b1", 0)]), 1)], known)
    finally:
        client.raw_insert = raw_insert  # type: ignore[method-assign]
    assert failed == ["learning_events"]
    assert sorted(row[0] for row in clickhouse.rows("SELECT mid FROM events")) == ["a", "before"]


def test_numbers_that_only_the_slow_parser_reads_can_be_resent(clickhouse: ClickHouse) -> None:
    known = cache(clickhouse)
    for batch_id, blank in (("b1", ""), ("b2", " ")):
        value = event("a", edata={"type": "t", "id": "x", "duration": 777})
        raw = sealed_raw(value, blank, batch_id)
        storer(clickhouse).store_valid([record(raw, 0 if blank else 1)], known)
    ((differs,),) = clickhouse.rows("SELECT differs FROM duplicates")
    assert differs is False


def sealed_raw(value: dict, blank: str, batch_id: str) -> bytes:
    import orjson

    from processors.validate.seal import ValidBlock
    from tests.unit.store.rows import valid_row

    raw = orjson.dumps(value).replace(b"777", blank.encode() + b"1e999")
    block = ValidBlock(0, 1, 1_000, 1 << 30)
    assert list(block.add(valid_row(value, raw, batch_id, 0))) == []
    (result,) = block.seal()
    return result.value


def test_rows_without_a_token_can_come_again_after_they_were_deleted(clickhouse: ClickHouse) -> None:
    """A restore brings back what was there before, to the byte."""
    table = pa.table({"type": ["user"], "id": ["u-1"], "version": [1]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for _ in range(2):
        clickhouse.insert_stream(
            "dimension_rows", table.column_names, sink.getvalue().to_pybytes(), "", tries=1, before_try=lambda _: None
        )
        assert count(clickhouse, "dimensions") == 1
        clickhouse.command("ALTER TABLE dimension_rows DELETE WHERE id = 'u-1'", {"mutations_sync": 2})
        assert count(clickhouse, "dimensions") == 0


def test_only_refusals_of_the_data_are_called_so(clickhouse: ClickHouse) -> None:
    with pytest.raises(ClickHouseError) as unknown_table:
        clickhouse.rows("SELECT * FROM no_such_table")
    assert not unknown_table.value.by_data
    sink = pa.BufferOutputStream()
    table = pa.table({"nothing": ["x"]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ClickHouseError) as unknown_column:
        clickhouse.insert_stream(
            "learning_events", ["nothing"], sink.getvalue().to_pybytes(), "t", tries=1, before_try=lambda _: None
        )
    assert not unknown_column.value.by_data
