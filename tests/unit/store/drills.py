"""Faults in one exact order, where random steps would take long to come to it. Each ends with every verdict checked."""

from __future__ import annotations

from contextlib import closing

from tests.unit.store.fake_engine import Outcome
from tests.unit.store.world import Sent, Sizes, World

_MOST_INSERTS = 25


def hang_in_every_part() -> None:
    """A record of nine events of which ClickHouse refuses two; a worker hangs in one of its inserts while another
    stores the record, and goes on then: in each of its inserts, before and after it was sent."""
    for is_sent in (False, True):
        for hang_at in range(_MOST_INSERTS):
            with closing(World(Sizes(partitions=1, window=64))) as world:
                world.send([Sent(f"m{n}", "INTERACT", 0, n in (0, 6)) for n in range(9)])
                world.seal([0], seal_rows=100)
                world.freeze(0, 1, hang_at, (1,), is_sent=is_sent, is_ticking=True)
                world.process(0, 1, (), (0,), is_reversed=False, again=False)
                world.drain()


def stand_still_beyond_the_window() -> None:
    """A worker stands still between deciding and inserting, until the tables have forgotten the tokens under which
    another stored the same."""
    with closing(World(Sizes())) as world:
        world.send([Sent("m1", "INTERACT", 0, False), Sent("m2", "LOG", 0, False)])
        world.seal([0], seal_rows=100)
        world.freeze(0, 2, 0, (1,), is_sent=False, is_ticking=False)
        world.process(0, 2, (), (0,), is_reversed=False, again=False)
        world.insert_others(world.sizes.window)
        world.drain()


def hang_with_a_mid_for_two_tables() -> None:
    """A mid comes twice in a block, for two tables; a worker hangs before the second of them, while another stores the
    block."""
    with closing(World(Sizes(partitions=1))) as world:
        world.send([Sent("m1", "INTERACT", 0, False), Sent("m2", "INTERACT", 0, False), Sent("m2", "LOG", 0, False)])
        world.seal([0], seal_rows=100)
        world.freeze(0, 1, 1, (1,), is_sent=True, is_ticking=True)
        world.process(0, 1, (), (0,), is_reversed=False, again=False)
        world.drain()


def make_the_topic_anew() -> None:
    """Two topics of one name, whose offsets are the same and whose records are not."""
    with closing(World(Sizes(partitions=1))) as world:
        for generation in range(2):
            for number in range(3):
                world.send([Sent(f"m{generation}{number}", "INTERACT", 0, False)])
                world.seal(world.unsealed, seal_rows=100)
                world.process(0, 1, (), (0,), is_reversed=False, again=False)
            world.make_topic_anew((0,))


def restart_the_engine_twice() -> None:
    """An engine dies between a token and its rows, and is restarted once more just before they are tried again: what it
    says of the inserts that it has dropped is then the same as before, though it dropped this one."""
    with closing(World(Sizes(partitions=1))) as world:
        world.send([Sent("m1", "INTERACT", 0, False)])
        world.seal([0], seal_rows=100)
        world.process(0, 1, (Outcome.TORN, Outcome.CRASH_BEFORE), (0,), is_reversed=False, again=False)
        world.engine.dropped = 1  # of somebody else
        world.process(0, 1, (Outcome.RESTART,), (0,), is_reversed=False, again=False)
        world.drain()


DRILLS = (
    hang_in_every_part,
    hang_with_a_mid_for_two_tables,
    make_the_topic_anew,
    restart_the_engine_twice,
    stand_still_beyond_the_window,
)
