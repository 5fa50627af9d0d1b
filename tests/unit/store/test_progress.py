"""How far the pipeline is, and the moment up to which everything is complete."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from midstream.kafka.marks import Mark
from processors.store.accounting.progress import Progress
from processors.store.accounting.watermark import CLOCK_MARGIN_MS, MAX_OPEN, Collectors, Watermark

RAW = TopicPartition("telemetry.raw", 0)
RAW1 = TopicPartition("telemetry.raw", 1)
VALID = TopicPartition("telemetry.valid", 0)
DEAD = TopicPartition("telemetry.dead", 0)


def test_a_batch_is_through_when_what_validate_made_of_it_has_been_stored() -> None:
    progress = Progress()
    assert progress.observe({RAW: 10}, {VALID: 3, DEAD: 1}, {VALID: 2, DEAD: 1}, {RAW: 10}) == {}
    # More has been validated since; the first ten are through once the three and the one are stored.
    assert progress.observe({RAW: 20}, {VALID: 6, DEAD: 1}, {VALID: 3, DEAD: 1}, {RAW: 20}) == {RAW: 10}
    assert progress.observe({RAW: 20}, {VALID: 6, DEAD: 1}, {VALID: 6, DEAD: 1}, {RAW: 20}) == {RAW: 20}


def test_dead_letters_hold_back_as_events_do() -> None:
    progress = Progress()
    assert progress.observe({RAW: 5}, {VALID: 0, DEAD: 2}, {DEAD: 1}, {RAW: 5}) == {}
    assert progress.observe({RAW: 5}, {VALID: 0, DEAD: 2}, {DEAD: 2}, {RAW: 5}) == {RAW: 5}


def test_a_batch_without_its_own_row_is_not_through() -> None:
    progress = Progress()
    assert progress.observe({RAW: 5}, {VALID: 1}, {VALID: 1}, {RAW: 3}) == {RAW: 3}
    assert progress.observe({RAW: 5}, {VALID: 1}, {VALID: 1}, {}) == {RAW: 0}


def test_nothing_received_is_nothing_owed() -> None:
    assert Progress().observe({}, {VALID: 0, DEAD: 0}, {}, {}) == {}


def test_a_long_backlog_keeps_its_oldest_step() -> None:
    progress, watermark = Progress(), Watermark()
    for number in range(3_000):
        assert progress.observe({RAW: number}, {VALID: number + 1}, {VALID: 0}, {RAW: number}) == {}
        assert watermark.observe(number + 1, {RAW: number + 1}, {RAW: 0}) == 0
    assert progress.observe({RAW: 3_000}, {VALID: 3_001}, {VALID: 1}, {RAW: 3_000}) == {RAW: 0}
    assert watermark.observe(3_001, {RAW: 3_001}, {RAW: 1}) == 1
    assert len(progress._snapshots) <= 601
    assert len(watermark._waiting) <= 601


def mark(id_: str, low_ms: int, *, open_: bool = True, at_ms: int = 0) -> Mark:
    return Mark(id_, low_ms, at_ms or low_ms, open_)


def low(*marks: Mark) -> int:
    collectors = Collectors()
    for one in marks:
        collectors.take(one)
    return collectors.low_ms()


def test_the_least_mark_of_an_open_collector_counts() -> None:
    assert low(mark("a", 50_000), mark("b", 40_000), mark("a", 60_000)) == 40_000 - CLOCK_MARGIN_MS


def test_a_closed_collector_holds_nothing_back() -> None:
    marks = [mark("a", 50_000), mark("b", 10_000), mark("b", 20_000, open_=False)]
    assert low(*marks) == 50_000 - CLOCK_MARGIN_MS
    assert low(*marks, mark("b", 30_000)) == 30_000 - CLOCK_MARGIN_MS


def test_with_all_closed_it_is_the_newest_closing() -> None:
    closings = [mark("a", 50_000, open_=False, at_ms=51_000), mark("b", 10_000, open_=False, at_ms=11_000)]
    assert low(*closings) == 51_000 - CLOCK_MARGIN_MS


def test_nothing_is_claimed_where_no_collector_has_ever_been() -> None:
    assert low() == 0
    assert Watermark().observe(0, {}, {}) == 0


def test_a_collector_that_was_given_up_holds_nothing_back() -> None:
    collectors = Collectors()
    collectors.take(mark("lost", 10_000))
    collectors.take(mark("a", 50_000))
    collectors.forget("lost")
    assert collectors.low_ms() == 50_000 - CLOCK_MARGIN_MS


def test_more_collectors_than_can_be_held_end_all_claims() -> None:
    collectors = Collectors()
    for number in range(MAX_OPEN + 1):
        collectors.take(mark(str(number), 50_000))
    assert len(collectors.open) == MAX_OPEN
    assert collectors.low_ms() == 0


def test_the_watermark_waits_for_every_partition_and_never_goes_back() -> None:
    watermark = Watermark(5)
    assert watermark.observe(10, {RAW: 3, RAW1: 2}, {RAW: 3, RAW1: 1}) == 5
    assert watermark.observe(20, {RAW: 4, RAW1: 3}, {RAW: 4, RAW1: 2}) == 10
    assert watermark.observe(7, {RAW: 4, RAW1: 3}, {RAW: 4, RAW1: 3}) == 20
    assert watermark.observe(7, {RAW: 4, RAW1: 3}, {RAW: 4, RAW1: 3}) == 20


@dataclass
class World:
    """A pipeline, step by step: two collectors with spools, two partitions, validate, store, receipts, the accountant.

    Times count in steps and are turned into milliseconds wide apart, so that the clocks' margin is one step.
    """

    now: int = 10
    raw: dict[TopicPartition, list[int]] = field(default_factory=lambda: {RAW: [], RAW1: []})
    """The receipt of each record, by partition."""
    valid: list[tuple[int, TopicPartition, int]] = field(default_factory=list)
    """Blocks: partition and offset of the batch that each holds."""
    spooled: dict[str, list[tuple[int, TopicPartition]]] = field(default_factory=dict)
    validated: dict[TopicPartition, int] = field(default_factory=lambda: {RAW: 0, RAW1: 0})
    received: dict[TopicPartition, int] = field(default_factory=lambda: {RAW: 0, RAW1: 0})
    stored: int = 0
    marks: list[Mark] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    """Receipts of all batches answered with 200."""

    def ms(self, step: int) -> int:
        return step * CLOCK_MARGIN_MS

    def done(self) -> list[int]:
        """Receipts of the batches that are stored and have their own row."""
        stored = {(tp, offset) for _, tp, offset in self.valid[: self.stored]}
        return [
            at
            for tp, records in self.raw.items()
            for offset, at in enumerate(records)
            if (tp, offset) in stored and offset < self.received[tp]
        ]


class TheAccountant:
    """One worker's accountant, whose round is taken apart into its reads, in their order."""

    def __init__(self, world: World, reached_ms: int) -> None:
        self.world = world
        self.progress = Progress()
        self.watermark = Watermark(reached_ms)
        self.complete: dict[TopicPartition, int] = {}
        self.step = 0

    def go_on(self) -> None:
        world = self.world
        if self.step == 0:
            collectors = Collectors()
            for one in world.marks:
                collectors.take(one)
            self.low = collectors.low_ms()
        elif self.step == 1:
            self.ends = {tp: len(records) for tp, records in world.raw.items()}
        elif self.step == 2:
            self.validated = dict(world.validated)
        elif self.step == 3:
            self.valid_end = {VALID: len(world.valid)}
        elif self.step == 4:
            self.stored = {VALID: world.stored}
        else:
            found = self.progress.observe(self.validated, self.valid_end, self.stored, dict(world.received))
            self.complete |= {tp: max(self.complete.get(tp, 0), offset) for tp, offset in found.items()}
            self.watermark.observe(self.low, self.ends, self.complete)
        self.step = (self.step + 1) % 6


WEIGHTS = {
    "tick": 4,
    "accept": 4,
    "spool": 1,
    "drain": 2,
    "mark": 4,
    "validate": 6,
    "store": 6,
    "receive": 6,
    "look": 12,
    "open": 1,
    "stop": 0.3,
    "restart": 0.2,
    "replay": 0.2,
}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_complete_until_never_claims_a_batch_that_is_not_through(seed: int) -> None:
    rng = random.Random(seed)
    weights = [weight * rng.uniform(0.2, 2) for weight in WEIGHTS.values()]
    steps = [
        (action, rng.choice("ab"), rng.choice([RAW, RAW1])) for action in rng.choices(list(WEIGHTS), weights, k=600)
    ]
    world = World()
    accountant = TheAccountant(world, 0)
    is_open: set[str] = set()
    reached = 0
    for action, who, tp in steps:
        spool = world.spooled.setdefault(who, [])
        if action == "tick":
            world.now += 1
        elif action == "open":
            is_open.add(who)
            oldest = min((at for at, _ in spool), default=world.now)
            world.marks.append(mark(who, world.ms(oldest), at_ms=world.ms(world.now)))
        elif action in ("accept", "spool") and who in is_open:
            world.accepted.append(world.now)
            if action == "accept":
                world.raw[tp].append(world.now)
            else:
                spool.append((world.now, tp))
        elif action == "drain" and spool:
            at, to = spool.pop(0)
            world.raw[to].append(at)
        elif action == "mark" and who in is_open:
            oldest = min((at for at, _ in spool), default=world.now)
            world.marks.append(mark(who, world.ms(oldest), at_ms=world.ms(world.now)))
        elif action == "stop" and who in is_open and not spool:
            is_open.discard(who)
            world.marks.append(mark(who, world.ms(world.now), open_=False))
        elif action == "validate" and world.validated[tp] < len(world.raw[tp]):
            world.valid.append((len(world.valid), tp, world.validated[tp]))
            world.validated[tp] += 1
        elif action == "replay":
            world.validated[tp] = 0  # its offset is set back: it seals everything again
        elif action == "store" and world.stored < len(world.valid):
            world.stored += 1
        elif action == "receive" and world.received[tp] < len(world.raw[tp]):
            world.received[tp] += 1
        elif action == "look":
            accountant.go_on()
        elif action == "restart":
            accountant = TheAccountant(world, reached)
        assert accountant.watermark.reached_ms >= reached
        if accountant.watermark.reached_ms == reached:
            continue
        reached = accountant.watermark.reached_ms
        owed = sorted(at for at in world.accepted if world.ms(at) < reached)
        through = sorted(at for at in world.done() if world.ms(at) < reached)
        assert through == owed
