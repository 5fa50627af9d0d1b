import numpy as np
import pyarrow as pa
import pytest

from processors.store.block import read_block
from processors.store.route import EVENT_TABLES, RouteError, check_routes, route
from processors.store.units import InsertUnit, event_units, make_token
from tests.unit.store.rows import event, sealed


def units_of(eids: list[str], value_seed: str = "b") -> list:
    value = sealed([(event(f"m{n}", eid), value_seed, n) for n, eid in enumerate(eids)])
    rows = read_block(value)[0]
    return event_units(rows, None, ["flags"], [pa.array(["{}"] * rows.num_rows)], value)


def test_every_event_goes_to_exactly_one_table() -> None:
    units = units_of(["START", "LOG", "INTERACT", "ERROR", "METRICS", "OURS"])
    by_table = {unit.table: unit.rows.column("mid").to_pylist() for unit in units}
    assert by_table == {"learning_events": ["m0", "m2", "m5"], "operational_events": ["m1", "m3", "m4"]}


def test_only_the_new_rows_are_taken_each_with_what_was_added_to_it() -> None:
    eids = ["START", "LOG", "INTERACT", "ERROR", "START"]
    value = sealed([(event(f"m{n}", eid), "b", n) for n, eid in enumerate(eids)])
    rows = read_block(value)[0]
    for new in ([1, 2, 4], [0, 2], [3], []):
        flags = pa.array([f"of m{n}" for n in new], pa.string())
        coded = flags.dictionary_encode()
        units = event_units(rows, np.array(new, dtype=np.int64), ["flags", "coded"], [flags, coded], value)
        for unit in units:
            assert unit.rows.column("coded").equals(unit.rows.column("flags"))
        found = [pair for unit in units for pair in zip(*unit.rows.select(["mid", "flags"]).columns, strict=True)]
        assert sorted((mid.as_py(), flag.as_py()) for mid, flag in found) == [(f"m{n}", f"of m{n}") for n in new]
        assert {unit.table for unit in units} == {route(eids[n]) for n in new}


def test_a_table_without_rows_gets_no_insert() -> None:
    assert [unit.table for unit in units_of(["LOG"])] == ["operational_events"]
    rows = read_block(sealed([(event("a"), "b", 0)]))[0].slice(0, 0)
    assert event_units(rows, None, [], [], b"v") == []


def test_the_token_is_that_of_the_value_and_the_table() -> None:
    first, again, other = units_of(["START", "LOG"]), units_of(["START", "LOG"]), units_of(["START", "LOG"], "b2")
    assert [unit.token for unit in first] == [unit.token for unit in again]
    assert len({unit.token for unit in (*first, *other)}) == 4
    assert make_token("t", b"ab", b"c") == make_token("t", b"ab", b"c")
    assert make_token("t", b"ab") != make_token("u", b"ab")


def test_the_body_is_an_arrow_stream_of_one_batch_without_dictionaries() -> None:
    (unit,) = units_of(["START", "END"])
    with pa.ipc.open_stream(b"".join(unit.body())) as reader:
        batches = list(reader)
    assert len(batches) == 1
    assert batches[0].equals(unit.rows)
    assert not any(pa.types.is_dictionary(field.type) for field in unit.rows.schema)


def test_large_columns_of_a_body_are_not_copied_and_small_ones_are_joined() -> None:
    text = pa.array(["x" * 1_000] * 200)
    rows = pa.record_batch({"a": pa.array(range(200)), "raw": text, "b": pa.array(range(200)), "none": pa.nulls(200)})
    pieces = InsertUnit("t", rows, "").body()
    assert [len(piece) >= 200_000 for piece in pieces] == [False, True, False]
    assert pa.py_buffer(pieces[1]).address == text.buffers()[2].address
    with pa.ipc.open_stream(b"".join(pieces)) as reader:
        assert reader.read_all().to_batches() == [rows]


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_body_of_a_part_of_larger_columns_has_that_part_alone(rows: int) -> None:
    whole = pa.record_batch({"raw": pa.array([f"{n:01000}" for n in range(500)]), "b": pa.array(range(500))})
    pieces = InsertUnit("t", whole.slice(250, rows), "").body()
    assert sum(map(len, pieces)) < 20_000
    with pa.ipc.open_stream(b"".join(pieces)) as reader:
        assert reader.read_all().to_pylist() == whole.slice(250, rows).to_pylist()


def split_to_the_end(unit: InsertUnit) -> dict[str, str]:
    """Return the token under which each mid stands alone."""
    if unit.rows.num_rows == 1:
        return {unit.rows.column("mid")[0].as_py(): unit.token}
    return {mid: token for half in unit.halves() for mid, token in split_to_the_end(half).items()}


def test_halves_are_the_whole_with_tokens_of_their_own() -> None:
    (unit,) = units_of(["START"] * 40)
    left, right = unit.halves()
    assert sorted(left.rows.column("mid").to_pylist() + right.rows.column("mid").to_pylist()) == sorted(
        f"m{n}" for n in range(40)
    )
    assert len({unit.token, left.token, right.token}) == 3
    with pa.ipc.open_stream(b"".join(right.body())) as reader:
        assert reader.read_all().num_rows == right.rows.num_rows
    tokens = split_to_the_end(unit)
    assert len(set(tokens.values())) == 40


def test_a_row_has_the_same_place_whatever_else_is_left_of_its_record() -> None:
    """A worker that stood still with all of a record, and one that began after a crash with some of it, must not put a
    row under two tokens: each row that both insert in one piece has the same neighbours from among what is left."""
    (unit,) = units_of(["START"] * 40)
    left, right = unit.halves()
    remaining = InsertUnit(unit.table, unit.rows.slice(17), unit.token)
    for half, same in zip(remaining.halves(), (left, right), strict=True):
        assert half.token == same.token
        assert set(half.rows.column("mid").to_pylist()) <= set(same.rows.column("mid").to_pylist())


_LEARNING = (
    "START END IMPRESSION INTERACT ASSESS RESPONSE INTERRUPT FEEDBACK SHARE AUDIT HEARTBEAT SEARCH SUMMARY EXDATA OURS"
)
GOLDEN = {
    **dict.fromkeys(_LEARNING.split(), "learning_events"),
    **dict.fromkeys(("LOG", "ERROR", "METRICS"), "operational_events"),
}


@pytest.mark.parametrize(("eid", "table"), sorted(GOLDEN.items()))
def test_routes_are_frozen(eid: str, table: str) -> None:
    assert route(eid) == table


def test_a_route_without_a_table_refuses_to_start() -> None:
    check_routes([*EVENT_TABLES, "others"])
    with pytest.raises(RouteError, match=r"LOG.*operational_events"):
        check_routes(["learning_events"])


def test_a_block_of_one_table_is_not_copied() -> None:
    value = sealed([(event("a"), "b", 0)])
    rows = read_block(value)[0]
    (unit,) = event_units(rows, None, [], [], value)
    assert unit.rows.column("mid").buffers()[1].address == rows.column("mid").buffers()[1].address
    assert np.array_equal(unit.rows.column("mid_hash").to_numpy(), rows.column("mid_hash").to_numpy())
