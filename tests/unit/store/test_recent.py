import numpy as np
import pyarrow as pa

from processors.store.dedupe.recent import ARRIVAL_COLUMNS, Recent
from processors.validate.split import hash_mid
from tests.unit.store.rows import RECEIVED_AT_MS, block


def add(recent: Recent, arrivals: list[tuple[str, str, int]]) -> None:
    rows = block(arrivals)
    hashes = np.array([hash_mid(mid) for mid, _, _ in arrivals], dtype=np.uint64)
    recent.add(hashes, pa.Table.from_batches([rows]).select(list(ARRIVAL_COLUMNS)))


def test_it_answers_with_the_arrival_that_stored_a_mid() -> None:
    recent = Recent(1_000)
    add(recent, [("a", "b1", 0), ("b", "b1", 1)])
    add(recent, [("c", "b2", 7)])
    found = recent.find([(hash_mid("c"), "c"), (hash_mid("a"), "a"), (hash_mid("x"), "x")])
    assert set(found) == {"a", "c"}
    assert (found["c"].batch_id, found["c"].event_index, found["c"].received_at_ms) == ("b2", 7, RECEIVED_AT_MS)


def test_a_hash_shared_by_two_mids_is_told_apart_by_the_mid() -> None:
    recent = Recent(1_000)
    rows = block([("a", "b1", 0), ("b", "b2", 1)])
    recent.add(np.array([5, 5], dtype=np.uint64), pa.Table.from_batches([rows]).select(list(ARRIVAL_COLUMNS)))
    assert recent.find([(5, "b")])["b"].batch_id == "b2"
    assert recent.find([(5, "a")])["a"].batch_id == "b1"
    assert recent.find([(5, "c")]) == {}


def test_it_holds_the_newest_and_at_most_twice_its_limit() -> None:
    recent = Recent(100)
    for number in range(50):
        add(recent, [(f"m{number}-{n}", "b", n) for n in range(10)])
        assert len(recent) <= 200
    newest = [(hash_mid(f"m49-{n}"), f"m49-{n}") for n in range(10)]
    assert len(recent.find(newest)) == 10
    assert recent.find([(hash_mid("m0-0"), "m0-0")]) == {}
    assert recent.held_bytes > 0
