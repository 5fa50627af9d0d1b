"""What a write's telemetry tells: the fields that the writer left out, and what the learner did in each step. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from midstream.assignments.fields import Value
from midstream.assignments.indicators import ALGO_VERSION, StepFacts, indicators, step_facts
from midstream.assignments.runner import TelemetryError, read_telemetry

_encode = msgspec.json.Encoder().encode


class Derived(NamedTuple):
    """What the telemetry of a record tells."""

    computed: Mapping[str, Value]
    """Of the fields that the writer left out."""
    steps: Sequence[StepFacts]


def derive(given: Mapping[str, Value], telemetry: bytes) -> Derived:
    """Return what a record's telemetry tells beside what a write gives.

    Raises:
        TelemetryError: it is not what a code-exercise runner sends.
    """
    read = read_telemetry(telemetry)
    found = indicators(read)
    derived: dict[str, Value] = {
        "metrics": _encode(found.metrics),
        "engagement_score": found.engagement_score,
        "frustration_score": found.frustration_score,
        "completion_rate": found.completion_rate,
        "metrics_algo_version": ALGO_VERSION,
    }
    return Derived({name: value for name, value in derived.items() if name not in given}, step_facts(read))


def steps_of(telemetry: Value) -> Sequence[StepFacts]:
    """Return what the learner did in each step; nothing for telemetry of another kind, which may be kept too."""
    if not isinstance(telemetry, bytes):
        return ()
    try:
        return step_facts(read_telemetry(telemetry))
    except TelemetryError:
        return ()
