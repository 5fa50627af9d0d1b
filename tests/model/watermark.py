"""What the accounting claims, small enough to look at every state of it: ``progress`` and ``complete_until``.

Who takes part: collectors, each in a slot with a spool, which publish marks; ``validate`` (produces, then commits);
``store`` (stores, then commits); the consumer that writes ``batches``; and the accountant, which reads one thing after
the other while all of them go on. Collectors die and come again; Kafka is away for them at any moment.

**The invariant**, in every state:

(W1) A batch below the complete offset is through: its events have their verdicts and its receipt is written.
(W2) A batch that was answered 200 and was received before ``complete_until`` is through; nor will any such be answered
     later.

Time is a number that only grows; every collector's clock is that of the accountant (how far clocks may differ is a
margin, not a matter of order).

The space is looked at in two parts, since one relies on nothing but what the other claims: without collectors, the
chain of offsets to the complete offset (W1); with them, the way from marks to ``complete_until`` (W2), where batches
are through one by one and the complete offset is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_NEVER = -1


class Slot(NamedTuple):
    """A collector process's place, and what is durable of it."""

    is_running: bool = False
    mark: int = _NEVER
    """The low mark that was published last; -1: none, or said to be closed."""
    computed: int = _NEVER
    """A mark on its way to Kafka."""
    arriving: tuple[tuple[str, int], ...] = ()
    """Batches that are not answered yet, with their time of receipt."""
    spool: tuple[tuple[str, int], ...] = ()


class Round(NamedTuple):
    """What the accountant has read so far."""

    step: int = 0
    low: int = _NEVER
    """Of the marks."""
    raw_end: int = _NEVER
    """The end of ``telemetry.raw``, read after them; -1: nothing is being waited for."""
    validated: int = 0
    end: int = 0
    stored: int = 0


class State(NamedTuple):
    """Everything. Batches in a log are named; offsets count them."""

    now: int
    left: frozenset[str]
    """Batches that clients have not sent yet."""
    slots: tuple[Slot, ...]
    answered: frozenset[tuple[str, int]]
    """With the time of receipt."""
    raw: tuple[str, ...]
    produced: int
    """How much of ``telemetry.raw`` is in ``telemetry.valid``, one record a batch."""
    validated: int
    verdicts: int
    stored: int
    """What ``store`` has committed."""
    receipts: int
    round: Round
    complete: int
    complete_until: int


@dataclass(frozen=True)
class Rules:
    """The order of things that the claims rest on; a mutant has one of them otherwise."""

    ends_after_validated: bool = True
    low_before_ends: bool = True
    opens_before_accepting: bool = True
    counts_arriving: bool = True
    """Whether a mark holds back for batches that are not answered yet."""
    counts_spooled: bool = True
    waits_for_receipts: bool = True


class Watermark:
    """The steps of ``batches`` through ``slots`` (0: the chain alone), up to time ``last``."""

    def __init__(self, rules: Rules | None, *, batches: int, slots: int, last: int) -> None:
        self._rules = rules or Rules()
        self._batches = frozenset(f"b{number}" for number in range(batches))
        self._slots = slots
        self._last = last

    def initial(self) -> State:
        """Return the first state."""
        slots = (Slot(),) * self._slots
        return State(0, self._batches, slots, frozenset(), (), 0, 0, 0, 0, 0, Round(), 0, _NEVER)

    def violation(self, state: State) -> str:
        """Return which part of the invariant does not hold, "" when all do."""
        through = min(state.verdicts, state.receipts)
        if state.complete > through:
            return f"W1: {state.complete} batches are called complete, and {through} are"
        for batch, received_at in state.answered:
            if received_at < state.complete_until and batch not in state.raw[:through]:
                return f"W2: {batch}, received at {received_at}, is not through at {state.complete_until}"
        return ""

    def is_done(self, state: State) -> bool:
        """Tell whether all that clients sent is accounted for."""
        return not state.left and state.complete == len(state.raw)

    def successors(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield each step that may be taken, with its name."""
        if state.now < self._last:
            yield "time passes", state._replace(now=state.now + 1)
        for number, slot in enumerate(state.slots):
            yield from self._collector_steps(state, number, slot)
        yield from self._accountant_steps(state)
        if not self._slots:
            yield from self._pipeline_steps(state)
        elif state.produced < len(state.raw):
            through = state.produced + 1
            yield (
                f"{state.raw[state.produced]} is through",
                state._replace(produced=through, validated=through, verdicts=through, stored=through, receipts=through),
            )

    def _collector_steps(self, state: State, number: int, slot: Slot) -> Iterator[tuple[str, State]]:
        def after(changed: Slot, **others: object) -> State:
            slots = (*state.slots[:number], changed, *state.slots[number + 1 :])
            return state._replace(slots=slots, **others)  # type: ignore[arg-type]

        name = f"collector {number}"
        if not slot.is_running:
            yield f"{name} starts", after(slot._replace(is_running=True))
            return
        yield f"{name} dies", after(slot._replace(is_running=False, arriving=(), computed=_NEVER))
        if slot.computed == _NEVER:
            yield f"{name} works out its mark", after(slot._replace(computed=self._low(slot, state.now)))
        else:
            yield (
                f"{name} publishes its mark {slot.computed}",
                after(slot._replace(mark=slot.computed, computed=_NEVER)),
            )
        if slot.mark != _NEVER and not slot.arriving and not slot.spool:
            yield f"{name} stops", after(Slot())
        if slot.mark != _NEVER or not self._rules.opens_before_accepting:
            for batch in sorted(state.left):
                receives = slot._replace(arriving=(*slot.arriving, (batch, state.now)))
                yield f"{name} receives {batch} at {state.now}", after(receives, left=state.left - {batch})
        for one in slot.arriving:
            rest = slot._replace(arriving=tuple(other for other in slot.arriving if other != one))
            answered = state.answered | {one}
            yield f"{name} publishes {one[0]} and answers 200", after(rest, raw=(*state.raw, one[0]), answered=answered)
            yield (
                f"{name} spools {one[0]} and answers 200",
                after(rest._replace(spool=(*slot.spool, one)), answered=answered),
            )
        if slot.spool:
            first, *others = slot.spool
            yield f"{name} drains {first[0]}", after(slot._replace(spool=tuple(others)), raw=(*state.raw, first[0]))

    def _low(self, slot: Slot, now: int) -> int:
        held = slot.arriving if self._rules.counts_arriving else ()
        if self._rules.counts_spooled:
            held = (*held, *slot.spool)
        return min((received_at for _, received_at in held), default=now)

    def _pipeline_steps(self, state: State) -> Iterator[tuple[str, State]]:
        for batch in sorted(state.left)[:1]:
            yield "a batch is acknowledged by Kafka", state._replace(raw=(*state.raw, batch), left=state.left - {batch})
        if state.produced < len(state.raw):
            yield "validate produces", state._replace(produced=state.produced + 1)
        if state.validated < state.produced:
            yield "validate commits", state._replace(validated=state.produced)
        if state.verdicts < state.produced:
            yield "store stores", state._replace(verdicts=state.verdicts + 1)
        if state.stored < state.verdicts:
            yield "store commits", state._replace(stored=state.verdicts)
        if state.receipts < len(state.raw):
            yield "a receipt is written and committed", state._replace(receipts=state.receipts + 1)

    def _accountant_steps(self, state: State) -> Iterator[tuple[str, State]]:
        marks = ("low", "raw_end") if self._rules.low_before_ends else ("raw_end", "low")
        chain = ("validated", "end") if self._rules.ends_after_validated else ("end", "validated")
        reads = marks if self._slots else (*chain, "stored")
        step = state.round.step
        if step < len(reads):
            following = self._read(state, reads[step])
            yield (
                f"the accountant reads {reads[step]}",
                following._replace(round=following.round._replace(step=step + 1)),
            )
        elif state.round.stored < state.round.end:
            yield "the accountant waits", state._replace(round=state.round._replace(step=len(reads) - 1))
        else:
            yield "the accountant claims", self._claimed(state)

    def _read(self, state: State, what: str) -> State:
        round_ = state.round
        if what == "low":
            marks = [slot.mark for slot in state.slots if slot.mark != _NEVER]
            return state._replace(round=round_._replace(low=min(marks, default=state.now)))
        if what == "raw_end":
            return state._replace(round=round_._replace(raw_end=len(state.raw)))
        if what == "validated":
            return state._replace(round=round_._replace(validated=state.validated))
        if what == "end":
            return state._replace(round=round_._replace(end=state.produced))
        return state._replace(round=round_._replace(stored=state.stored))

    def _claimed(self, state: State) -> State:
        """Claim what follows from what has been read."""
        complete = min(state.validated, state.receipts)  # exact
        if not self._slots:
            complete = state.round.validated
            if self._rules.waits_for_receipts:
                complete = min(complete, state.receipts)
        if complete < state.round.raw_end:
            return state
        return state._replace(
            complete=max(complete, state.complete),
            complete_until=max(state.round.low, state.complete_until),
            round=Round(),
        )
