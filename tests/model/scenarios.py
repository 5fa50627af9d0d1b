"""What is sent in the models of the protocol, and the broken rules that each must find out."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.state import Row, Rules, Scenario

_BATCH = (Row("m1", "a1"), Row("m2", "a2", "U"))
_RESENT = (Row("m1", "b1"),)

RESENT = Scenario(
    "a batch over two tables, and one of its mids again", {"A": _BATCH, "B": _RESENT}, first=("A", "B"), window=1
)
FORGOTTEN = Scenario(
    "two records that pass the window of their table",
    {"A": (Row("m1", "a1"),), "B": (Row("m2", "b1"),)},
    first=("A", "B"),
    window=1,
)
REPLAYED = Scenario(
    "both sealed again into one block, the resent first, before or after the second comes",
    {"A": _BATCH, "B": _RESENT, "BA": (*_RESENT, *_BATCH)},
    first=("A",),
    later=("B", "BA"),
    window=1,
)
TWO_PARTITIONS = Scenario(
    "two partitions, and a mid again in one of them",
    {"A": (Row("m1", "a1"),), "B": (Row("m1", "b1"),), "C": (Row("m2", "c1"),)},
    first=("A", "B", "C"),
    partition_of={"A": 0, "B": 0, "C": 1},
)
REFUSED = Scenario(
    "five rows, of which the engine refuses the first",
    {"A": (Row("m1", "a1", bad=True), *(Row(f"m{n}", f"a{n}") for n in range(2, 6)))},
    first=("A",),
    window=4,
    with_resets=False,
)
REFUSED_TWICE = Scenario(
    "a mid twice in a block, of which the engine refuses the first arrival, and a third time later",
    {"A": (Row("m1", "a1", bad=True), Row("m1", "a2"), Row("m2", "a3")), "B": (Row("m1", "b1"),)},
    first=("A", "B"),
)
TWICE = Scenario("a mid twice in a block, for two tables", {"A": (Row("m1", "a1"), Row("m1", "a2", "U"))}, first=("A",))
ANEW = Scenario(
    "a topic made anew, with a mid that came before and a new one",
    {"A": (Row("m1", "a1"),), "B": (Row("m1", "b1"), Row("m2", "b2"))},
    first=("A",),
    anew=("B",),
)
COLLIDING = Scenario(
    "two mids of one hash", {"A": (Row("m1", "a1"),), "B": (Row("m2", "b1"),)}, first=("A", "B"), hash_of=lambda _: "h"
)
SCENARIOS = (RESENT, FORGOTTEN, REPLAYED, TWO_PARTITIONS, REFUSED, REFUSED_TWICE, TWICE, ANEW, COLLIDING)


@dataclass(frozen=True)
class Mutant:
    """A broken rule, the scenario that shows it and the part of the invariant that does not hold then."""

    name: str
    rules: Rules
    scenario: Scenario
    breaks: str


MUTANTS = (
    Mutant("no token", Rules(token="none"), RESENT, "I1"),
    Mutant("token from the offset", Rules(token="offset"), ANEW, "I4"),
    Mutant("cache marked before the insert", Rules(marks_before=True), RESENT, "I4"),
    Mutant("acknowledged before the insert", Rules(acks_before=True), RESENT, "I3"),
    Mutant("cache not loaded at assignment", Rules(loads=False), RESENT, "I1"),
    Mutant("confirmed by hash only", Rules(confirms_mid=False), COLLIDING, "I2"),
    Mutant("halves under the record's token", Rules(halves="own"), REFUSED, "I4"),
    Mutant("halves of what is left of a record", Rules(halves="left"), REFUSED, "I1"),
    Mutant("duplicates of a refused row left so", Rules(decides_again=False), REFUSED_TWICE, "I2"),
    Mutant("decision by the moment", Rules(is_deterministic=False), TWICE, "I1"),
    Mutant("no lease", Rules(has_lease=False), FORGOTTEN, "I1"),
    Mutant("inserts that take longer than the window lasts", Rules(is_in_time=False), FORGOTTEN, "I1"),
)
