"""When late dimensions are looked for, and among which."""

from __future__ import annotations

import pytest

from midstream.clickhouse.client import ClickHouseError
from midstream.dimensions import DimensionType
from serve.jobs.repair import Repairs

MINUTE_MS = 60_000


class World:
    """A clock, objects by type with when they were stored, and what was repaired."""

    def __init__(self) -> None:
        self.now_ms = 100 * MINUTE_MS
        self.stored = {"user": 10 * MINUTE_MS}
        self.repaired: list[tuple[str, int]] = []
        self.away = False
        self.repairs = Repairs(self, self.rows, 30, clock=lambda: self.now_ms / 1000, clock_ms=lambda: self.now_ms)

    def rows(self, sql: str) -> list[tuple[str, int]]:
        assert "dimension_rows" in sql
        return list(self.stored.items())

    def repair(self, type_: DimensionType, since_ms: int) -> int:
        if self.away:
            raise ClickHouseError("away", None)
        self.repaired.append((type_.value, since_ms // MINUTE_MS))
        return 1

    def after(self, minutes: float) -> list[tuple[str, int]]:
        self.now_ms += int(minutes * MINUTE_MS)
        self.repaired = []
        self.repairs.if_due()
        return self.repaired


def test_all_objects_are_looked_at_first_and_old_ones_then_no_more() -> None:
    world = World()
    assert world.after(0) == [("user", 0)]
    assert world.after(1) == []


def test_it_is_not_done_before_it_is_due() -> None:
    world = World()
    world.after(0)
    world.stored["user"] = world.now_ms
    assert world.after(0.4) == []
    assert world.after(0.1) == [("user", 92)]


def test_what_came_is_looked_at_for_some_minutes() -> None:
    world = World()
    world.after(0)
    world.stored["user"] = world.now_ms
    looks = [world.after(1) for _ in range(12)]
    assert looks == [[("user", 92 + number)] for number in range(9)] + [[], [], []]


def test_after_a_pause_nothing_is_left_out() -> None:
    world = World()
    world.after(0)
    world.stored["user"] = world.now_ms + MINUTE_MS
    world.away = True
    for _ in range(30):
        with pytest.raises(ClickHouseError):
            world.after(1)
    world.away = False
    assert world.after(1) == [("user", 92)]


def test_each_type_is_looked_at_by_itself_and_others_never() -> None:
    world = World()
    world.stored |= {"device": 5, "erased": 5}
    assert world.after(0) == [("user", 0), ("device", 0)]
    world.stored["device"] = world.now_ms
    assert world.after(1) == [("device", 92)]
