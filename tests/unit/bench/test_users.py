"""Users of the bench: told apart by their mark, and as large as real ones."""

from __future__ import annotations

import orjson
import pytest

from bench.dimensions import parts
from bench.mix import user_id
from bench.users import NEW, OLD, attributes, changed_ids, line, lines
from midstream.dimension_location import derive_location


@pytest.mark.parametrize("number", [0, 999, 999_999])
def test_a_line_is_a_row_of_a_bulk_load_of_the_size_that_is_told(number: int) -> None:
    row = orjson.loads(line(number, OLD))
    assert row == {"id": user_id(number), "attributes": attributes(number, OLD)}
    assert 150 <= len(line(number, OLD)) <= 280


def test_copies_and_locations_tell_the_mark() -> None:
    old, new = (orjson.dumps(attributes(7, mark)).decode() for mark in (OLD, NEW))
    for mark, other, text in ((OLD, NEW, old), (NEW, OLD, new)):
        for said in (text, derive_location("user", text)):
            assert f'"{mark} ' in said
            assert f'"{other} ' not in said


def test_lines_are_all_users_once() -> None:
    read = b"".join(lines(range(3, 300_007), OLD)).splitlines()
    assert len(read) == 300_004
    assert [orjson.loads(read[place])["id"] for place in (0, 250_000, -1)] == [
        user_id(3),
        user_id(250_003),
        user_id(300_006),
    ]


def test_the_changed_users_are_the_first_of_the_mix() -> None:
    assert changed_ids(3) == [user_id(0), user_id(1), user_id(2)]


@pytest.mark.parametrize(("count", "of"), [(10, 3), (4, 4), (1_000_000, 7), (2, 5)])
def test_parts_hold_each_number_once_and_are_alike(count: int, of: int) -> None:
    found = parts(count, of)
    assert [number for part in found for number in part] == list(range(count))
    assert max(map(len, found)) - min(map(len, found)) <= 1
