"""What trace asks ClickHouse: the right rows, through an index, whatever merges have done."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from midstream.clickhouse.client import ClickHouse
from midstream.trace.arrivals import BatchFacts, Evidence, Reject, Sighting, Stored
from midstream.trace.elsewhere import Elsewhere
from midstream.trace.stored import MAX_ARRIVALS, Others, StoredTraces
from processors.validate.split import hash_mid
from tests.contract.clickhouse.test_insert import cache, record, storer
from tests.unit.store.rows import RECEIVED_AT_MS, event, sealed

ODD = ["a/b", "quo'te\"\\", "ünï😀", "\x00\n\t", "%41?x=1", "m" * 10_000]


def hashed(*mids: str) -> dict[str, int]:
    return {mid: hash_mid(mid) for mid in mids}


class Watched:
    """Runs queries and keeps them."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self.queries: list[tuple[str, dict[str, Any] | None]] = []

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> Sequence[tuple[Any, ...]]:
        self.queries.append((sql, parameters))
        return self._clickhouse.rows(sql, parameters)

    def plans(self) -> list[str]:
        """Return the plan of each query asked so far."""
        return [
            "\n".join(row[0] for row in self._clickhouse.rows(f"EXPLAIN indexes = 1 {sql}", parameters))
            for sql, parameters in self.queries
        ]


@pytest.fixture
def watched(clickhouse: ClickHouse) -> Watched:
    return Watched(clickhouse)


@pytest.fixture
def traces(watched: Watched) -> StoredTraces:
    return StoredTraces(watched.rows)


def store(clickhouse: ClickHouse, *arrivals: tuple[str, str, int], eid: str = "INTERACT", offset: int = 0) -> None:
    """Store events by the code that does it in production; a mid that is there becomes a duplicate."""
    values = [(event(mid, eid), batch_id, index) for mid, batch_id, index in arrivals]
    storer(clickhouse).store_valid([record(sealed(values), offset)], cache(clickhouse))


def reject(
    clickhouse: ClickHouse, *rows: tuple[str, str, int, str], at_ms: int = RECEIVED_AT_MS, written: int = 1
) -> None:
    for mid, batch_id, index, code in rows:
        clickhouse.rows(
            "INSERT INTO reject_rows"
            " (mid, batch_id, event_index, received_at, code, pointer, message, scope, stored_at)"
            " SELECT {mid:String}, {batch:String}, {index:Int32}, fromUnixTimestamp64Milli({at:Int64}, 'UTC'),"
            " {code:String}, '/x', 'why', 'event', fromUnixTimestamp64Milli({written:Int64}, 'UTC')",
            {"mid": mid, "batch": batch_id, "index": index, "at": at_ms, "code": code, "written": written},
        )


@pytest.mark.parametrize("mid", ODD)
def test_an_event_of_any_mid_is_found_in_its_table(clickhouse: ClickHouse, traces: StoredTraces, mid: str) -> None:
    store(clickhouse, (mid, "b1", 4), ("other", "b1", 5))
    store(clickhouse, (mid + "!", "b2", 0), eid="LOG", offset=1)
    mids = hashed(mid, mid + "!", "never")
    found = traces.events(mids)
    assert {one: (event.table, event.sighting) for one, event in found.items()} == {
        mid: ("learning_events", Sighting(Evidence.EVENT, "b1", 4, RECEIVED_AT_MS)),
        mid + "!": ("operational_events", Sighting(Evidence.EVENT, "b2", 0, RECEIVED_AT_MS)),
    }
    details = traces.details({mid: found[mid]}, mids, with_raw=True)
    assert list(details) == [mid]
    text = clickhouse.rows(
        "SELECT raw, toUnixTimestamp64Milli(stored_at) FROM events WHERE mid = {mid:String}", {"mid": mid}
    )
    assert [(details[mid].raw, details[mid].stored_at_ms)] == [tuple(row) for row in text]
    both = traces.details(found, mids, with_raw=False)
    assert both.keys() == found.keys()
    assert all(one.raw is None for one in both.values())


def test_a_hash_alone_finds_nothing(clickhouse: ClickHouse, traces: StoredTraces) -> None:
    store(clickhouse, ("mine", "b1", 0), ("mine", "b2", 0))
    reject(clickhouse, ("mine", "b3", 0, "UNKNOWN_EID"))
    collision = {"another": hash_mid("mine")}
    assert traces.events(collision) == {}
    assert traces.others(collision) == Others({}, frozenset())


def test_duplicates_name_both_arrivals(clickhouse: ClickHouse, traces: StoredTraces) -> None:
    store(clickhouse, ("a", "b1", 3))
    store(clickhouse, ("a", "b2", 5), offset=1)
    store(clickhouse, ("a", "b2", 5), offset=1)  # a replay
    found = traces.others(hashed("a", "b")).sightings
    assert {mid: set(sightings) for mid, sightings in found.items()} == {
        "a": {
            Sighting(Evidence.DUPLICATE, "b2", 5, RECEIVED_AT_MS, differs=False),
            Sighting(Evidence.NAMED_BY_DUPLICATE, "b1", 3, RECEIVED_AT_MS),
        }
    }


@pytest.mark.parametrize("merged", [False, True])
def test_a_row_written_twice_is_the_same_arrival_before_and_after_a_merge(
    clickhouse: ClickHouse, traces: StoredTraces, watched: Watched, merged: bool
) -> None:
    for written in (1, 2):
        reject(clickhouse, ("r", "b1", 0, "UNKNOWN_EID"), ("r", "b2", 1, "POISON"), written=written)
    if merged:
        clickhouse.command("OPTIMIZE TABLE reject_rows FINAL")
    found = traces.others(hashed("r"))
    assert {(one.key, one.reject and one.reject.code) for one in found.sightings["r"]} == {
        (("b1", 0), "UNKNOWN_EID"),
        (("b2", 1), "POISON"),
    }
    assert max(one.reject for one in found.sightings["r"] if one.key == ("b1", 0)) == Reject(
        2, "UNKNOWN_EID", "/x", "why"
    )
    (plan,) = watched.plans()
    assert "ReadFromMergeTree (by_mid)" in plan


def test_arrivals_beyond_the_limit_are_said_to_be_there(clickhouse: ClickHouse, traces: StoredTraces) -> None:
    clickhouse.rows(
        "INSERT INTO reject_rows (mid, batch_id, event_index, received_at, code, stored_at)"
        " SELECT if(number % 2, 'many', 'x'), 'b',"
        " number, fromUnixTimestamp64Milli(1790000000000 + toInt64(number), 'UTC'), 'POISON', now64(3)"
        f" FROM numbers({2 * MAX_ARRIVALS})"
    )
    found = traces.others(hashed("many"))
    assert (len(found.sightings["many"]), found.cut_off) == (MAX_ARRIVALS, frozenset())
    reject(clickhouse, ("many", "last", 0, "POISON"), at_ms=1_795_000_000_000)
    found = traces.others(hashed("many"))
    assert (len(found.sightings["many"]), found.cut_off) == (MAX_ARRIVALS, frozenset({"many"}))
    assert "last" not in {one.batch_id for one in found.sightings["many"]}


@pytest.mark.parametrize("table", ["duplicate_rows", "reject_rows"])
def test_an_apps_own_arrivals_are_not_crowded_out_by_others(
    clickhouse: ClickHouse, traces: StoredTraces, watched: Watched, table: str
) -> None:
    """``others`` come first, and are more than are listed; then ``own``, and one whose batch is not written yet."""
    more = ", first_batch_id" if table == "duplicate_rows" else ", code"
    for batch, first, count in (("'others'", 0, 2 * MAX_ARRIVALS), ("'own'", 9_000, 3), ("'late'", 9_500, 1)):
        clickhouse.rows(
            f"INSERT INTO {table} (mid, batch_id, event_index, received_at{more}) SELECT 'm', {batch}, number,"
            f" fromUnixTimestamp64Milli(1790000000000 + {first} + toInt64(number), 'UTC'), 'first'"
            f" FROM numbers({count})"
        )
        if batch != "'late'":
            clickhouse.rows(
                f"INSERT INTO batch_rows (batch_id, received_at, credential) SELECT {batch},"
                f" fromUnixTimestamp64Milli(1790000000000 + {first} + toInt64(number), 'UTC'), {batch}"
                f" FROM numbers({count})"
            )
    mids = hashed("m", *(f"x{number}" for number in range(30)))  # as in a POST
    for asked in (hashed("m"), mids):
        everything = traces.others(asked)
        assert everything.cut_off == {"m"}
        assert "own" not in {one.batch_id for one in everything.sightings["m"]}
        found = traces.others(asked, "own")
        places = {one.key for one in found.sightings["m"] if one.evidence is not Evidence.NAMED_BY_DUPLICATE}
        assert places == {("own", 0), ("own", 1), ("own", 2), ("late", 0)}
        assert found.cut_off == frozenset()
        named = {one.batch_id for one in found.sightings["m"]} - {"own", "late"}
        assert named == ({"first"} if table == "duplicate_rows" else set())
    assert traces.others(hashed("m"), "others").cut_off == {"m"}
    watched.queries.clear()
    traces.others(hashed("x1"), "own")
    assert len(watched.queries) == 1  # what fits is asked for once


def insert_batches(clickhouse: ClickHouse, *rows: tuple[str, int, int]) -> None:
    """``rows``: batch_id, receipt in epoch milliseconds, offset."""
    for batch_id, at_ms, offset in rows:
        clickhouse.rows(
            "INSERT INTO batch_rows (batch_id, msgid, received_at, did, credential, topic, partition, offset, source)"
            " SELECT {batch:String}, 'msg', fromUnixTimestamp64Milli({at:Int64}, 'UTC'), 'd', 'app', 'telemetry.raw',"
            " 1, {offset:UInt64}, 'http'",
            {"batch": batch_id, "at": at_ms, "offset": offset},
        )


def test_batches_are_found_by_their_primary_key(clickhouse: ClickHouse, traces: StoredTraces, watched: Watched) -> None:
    odd = "b'\"\\ü"
    insert_batches(clickhouse, ("b1", 1_790_000_000_000, 5), ("b2", 1_790_000_000_000, 6), (odd, 1_790_000_000_001, 7))
    clickhouse.rows(
        "INSERT INTO batch_rows (batch_id, received_at) SELECT toString(number),"
        " fromUnixTimestamp64Milli(1788000000000 + toInt64(number), 'UTC') FROM numbers(100000)"
    )
    clickhouse.command("OPTIMIZE TABLE batch_rows FINAL")
    wanted = {"b1": 1_790_000_000_000, odd: 1_790_000_000_001, "never": 1_790_000_000_002}
    assert traces.batches(wanted) == {
        "b1": BatchFacts("http", "msg", "d", "app", "telemetry.raw", 1, 5),
        odd: BatchFacts("http", "msg", "d", "app", "telemetry.raw", 1, 7),
    }
    assert list(traces.batches({odd: 1_790_000_000_001})) == [odd]
    for plan in watched.plans():
        assert "received_at" in plan[plan.index("PrimaryKey") :]
        assert "Granules: 1/" in plan


def test_a_moment_of_visibility_is_that_of_the_events_block(clickhouse: ClickHouse, traces: StoredTraces) -> None:
    mids = hashed("m")
    partition = mids["m"] % 4
    now_ms = time.time_ns() // 1_000_000  # older rows expire
    rows = [
        (partition, 4, now_ms, now_ms + 50),
        (partition, 4, now_ms, now_ms + 70),  # inserted again
        (partition, 4, now_ms + 1, now_ms + 999),  # another block
        ((partition + 1) % 4, 4, now_ms, now_ms + 999),  # another partition
    ]
    for part, of, stored_ms, visible_ms in rows:
        clickhouse.rows(
            "INSERT INTO block_rows (partition, partitions, stored_at, visible_at) SELECT {p:UInt32}, {of:UInt32},"
            " fromUnixTimestamp64Milli({s:Int64}, 'UTC'), fromUnixTimestamp64Milli({v:Int64}, 'UTC')",
            {"p": part, "of": of, "s": stored_ms, "v": visible_ms},
        )
    assert traces.visible({"m": Stored("learning_events", now_ms)}, mids) == {"m": now_ms + 70}
    assert traces.visible({"m": Stored("learning_events", now_ms + 2)}, mids) == {}


def test_every_look_up_reads_an_index_not_a_table(
    clickhouse: ClickHouse, traces: StoredTraces, watched: Watched
) -> None:
    clickhouse.rows(
        "INSERT INTO learning_events (mid, mid_hash, eid, ets, received_at, stored_at, batch_id, event_index, raw)"
        " SELECT concat('m', toString(number)) AS mid, xxh3(mid), 'START', at,"
        " toDateTime64(1790000000 + number / 100, 3, 'UTC') AS at, at, 'b', number, '{}' FROM numbers(200000)"
    )
    clickhouse.rows(
        "INSERT INTO duplicate_rows (mid, batch_id, event_index, received_at, first_batch_id)"
        " SELECT concat('m', toString(number)), 'd', number, toDateTime64(1790000000 + number / 100, 3, 'UTC'), 'b'"
        " FROM numbers(100000)"
    )
    clickhouse.command("OPTIMIZE TABLE learning_events FINAL")
    clickhouse.command("OPTIMIZE TABLE duplicate_rows FINAL")
    mids = hashed("m777")
    assert traces.details(traces.events(mids), mids, with_raw=True)["m777"].raw == "{}"
    assert [one.batch_id for one in traces.others(mids).sightings["m777"]] == ["d", "b"]
    events, details, others = watched.plans()
    # The other two tables are empty.
    assert re.findall(r"ReadFromMergeTree \((.+)\)", events + others) == ["by_mid_hash", "by_mid"]
    assert re.findall(r"Parts: 1 \| Granules: (\d+)", events + details + others) == ["1"] * 3


def test_many_mids_are_few_queries(clickhouse: ClickHouse, traces: StoredTraces, watched: Watched) -> None:
    mids = [f"m{number}" for number in range(1_000)]
    store(clickhouse, *((mid, "b1", number) for number, mid in enumerate(mids)))
    watched.queries.clear()
    found = traces.events(hashed(*mids))
    assert len(traces.details(found, hashed(*mids), with_raw=False)) == 1_000
    assert len(watched.queries) == 2


def mark(clickhouse: ClickHouse, name: str, at_s: float, *, is_open: bool = True, batches: int = 0) -> None:
    clickhouse.rows(
        "INSERT INTO collector_rows (id, low, at, open, spooled_batches) SELECT {id:String},"
        " fromUnixTimestamp64Milli({at:Int64}, 'UTC') AS moment, moment, {open:Bool}, {batches:UInt64}",
        {"id": name, "at": 1_790_000_000_000 + round(at_s * 1000), "open": is_open, "batches": batches},
    )


def test_another_hosts_spool_is_known_by_its_marks(clickhouse: ClickHouse, tmp_path: Path) -> None:
    def may_hold() -> bool:
        return Elsewhere(clickhouse.rows, tmp_path).may_hold()

    assert not may_hold()  # a pipeline without marks yet
    mark(clickhouse, "ours", 0, batches=3)
    assert may_hold()
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "state.json").write_text(json.dumps({"id": "ours", "open": True}))
    assert not may_hold()  # our own is searched
    mark(clickhouse, "theirs", 0)
    assert not may_hold()
    mark(clickhouse, "theirs", 1, batches=1)
    assert may_hold()
    mark(clickhouse, "theirs", 2)
    assert not may_hold()
    mark(clickhouse, "ours", 32)
    assert not may_hold()
    mark(clickhouse, "ours", 32.001)
    assert may_hold()  # not heard of for longer than 30 s
    mark(clickhouse, "theirs", 2.001, is_open=False)  # retired
    assert not may_hold()
    (tmp_path / "0" / "state.json").write_text("[")
    assert not may_hold()
    mark(clickhouse, "ours", 33, batches=1)
    assert may_hold()


def test_marks_are_asked_for_once_a_second(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr("midstream.trace.elsewhere.time.monotonic", lambda: now_s[0])
    elsewhere = Elsewhere(watched.rows, tmp_path)
    for now_s[0], asked in ((100.0, 1), (100.9, 1), (101.0, 2), (101.5, 2)):
        elsewhere.may_hold()
        assert len(watched.queries) == asked
