"""From what was seen of a ``mid`` to a verdict.

Pure: the same sightings in any order, however often, give the same trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

ArrivalKey = tuple[str, int]
"""(batch_id, event_index)"""


class Outcome(StrEnum):
    """What became of one arrival."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    IN_FLIGHT = "in_flight"


class Verdict(StrEnum):
    """What became of a mid."""

    STORED = "stored"
    REJECTED = "rejected"
    IN_FLIGHT = "in_flight"
    UNKNOWN = "unknown"


class Evidence(StrEnum):
    """Where an arrival was seen; what comes first here decides.

    A duplicate's row names the arrival that stored its mid: that one was stored, unless a row of its own says otherwise
    (its event may have been deleted by retention since).
    """

    EVENT = "event"
    DUPLICATE = "duplicate"
    REJECT = "reject"
    NAMED_BY_DUPLICATE = "named_by_duplicate"
    BACKLOG = "backlog"


_RANK = {evidence: rank for rank, evidence in enumerate(Evidence)}
_OUTCOME = {
    Evidence.EVENT: Outcome.STORED,
    Evidence.DUPLICATE: Outcome.DUPLICATE,
    Evidence.REJECT: Outcome.REJECTED,
    Evidence.NAMED_BY_DUPLICATE: Outcome.STORED,
    Evidence.BACKLOG: Outcome.IN_FLIGHT,
}


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What is known of a batch; ``topic``, ``partition`` and ``offset`` are None while it is in a collector's spool."""

    source: str
    msgid: str
    did: str
    credential: str
    topic: str | None
    partition: int | None
    offset: int | None


@dataclass(frozen=True, slots=True, order=True)
class Reject:
    """Why an event was refused. ``written_at_ms`` tells the newest of several rows of one arrival."""

    written_at_ms: int
    code: str
    pointer: str
    message: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """One arrival of a mid, seen in one place."""

    evidence: Evidence
    batch_id: str
    event_index: int
    received_at_ms: int
    reject: Reject | None = None
    differs: bool | None = None
    """Of a duplicate: whether its content is another than the stored event's."""
    facts: BatchFacts | None = None
    """What the place itself says of the batch."""

    @property
    def key(self) -> ArrivalKey:
        """The arrival's identity."""
        return self.batch_id, self.event_index


@dataclass(frozen=True, slots=True)
class Stored:
    """Where the event is. ``visible_at_ms`` is None when the worker did not live to write it."""

    table: str
    stored_at_ms: int
    visible_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """One arrival and what became of it. ``facts`` is None when its batch is not written anywhere yet that was read."""

    batch_id: str
    event_index: int
    received_at_ms: int
    outcome: Outcome
    reject: Reject | None
    differs: bool | None
    facts: BatchFacts | None


@dataclass(frozen=True, slots=True)
class Trace:
    """All that is known of a mid."""

    mid: str
    verdict: Verdict
    complete: bool
    """False: part of the backlog was not searched, so there may be more."""
    stored: Stored | None
    reject: Reject | None
    """Of the newest refused arrival, when the verdict is that the mid was refused."""
    arrivals: tuple[Arrival, ...]
    """In the order of receipt."""
    more_arrivals: bool = False
    """True: there are more arrivals than are listed."""
    event: str | None = None
    """The stored event's JSON text, where it was asked for."""


def judge(
    mid: str,
    sightings: Iterable[Sighting],
    *,
    stored: Stored | None = None,
    batches: Mapping[str, BatchFacts] | None = None,
    complete: bool = True,
    more_arrivals: bool = False,
    event: str | None = None,
) -> Trace:
    """Return the trace of a mid.

    Args:
        mid: the mid.
        sightings: what was seen of it, in any order; one arrival may be seen in several places.
        stored: where its event is.
        batches: what ``batches`` says of the arrivals' batches, by batch_id; it goes before what the places say.
        complete: whether every place was searched to its end.
        more_arrivals: whether there are more than these sightings.
        event: the stored event's JSON text.
    """
    by_arrival: dict[ArrivalKey, list[Sighting]] = {}
    for sighting in sightings:
        by_arrival.setdefault(sighting.key, []).append(sighting)
    arrivals = [_arrival(seen, (batches or {}).get(batch_id)) for (batch_id, _), seen in by_arrival.items()]
    arrivals.sort(key=lambda one: (one.received_at_ms, one.batch_id, one.event_index))
    verdict = _verdict({arrival.outcome for arrival in arrivals}, stored)
    return Trace(
        mid=mid,
        verdict=verdict,
        complete=complete,
        stored=stored,
        reject=_newest_reject(arrivals) if verdict is Verdict.REJECTED else None,
        arrivals=tuple(arrivals),
        more_arrivals=more_arrivals,
        event=event,
    )


def seen_by(trace: Trace, credential: str) -> Trace:
    """Return what an app may see: the arrivals of its own credential and what became of those, never the event.

    Where an arrival's credential is not known yet, it may be the app's: the trace is then not complete. Nor is it where
    none of the app's is among the arrivals that are listed, and there are more.
    """
    own = tuple(one for one in trace.arrivals if one.facts is not None and one.facts.credential == credential)
    outcomes = {arrival.outcome for arrival in own}
    # Another's arrival may have stored the mid of which this one brought a duplicate.
    stored = trace.stored if outcomes & {Outcome.STORED, Outcome.DUPLICATE} else None
    verdict = trace.verdict if Outcome.DUPLICATE in outcomes else _verdict(outcomes, stored)
    return replace(
        trace,
        verdict=verdict,
        complete=(
            trace.complete
            and all(arrival.facts is not None for arrival in trace.arrivals)
            and (bool(own) or not trace.more_arrivals)
        ),
        stored=stored,
        reject=_newest_reject(own) if verdict is Verdict.REJECTED else None,
        arrivals=own,
        more_arrivals=trace.more_arrivals and bool(own),
        event=None,
    )


def _arrival(seen: list[Sighting], batch: BatchFacts | None) -> Arrival:
    strongest = min(seen, key=lambda one: (_RANK[one.evidence], one.received_at_ms))
    outcome = _OUTCOME[strongest.evidence]
    rejects = [one.reject for one in seen if one.reject is not None]
    differing = [one.differs for one in seen if one.differs is not None]
    # A batch can be in the spool and in Kafka at once: Kafka's place says more.
    told = sorted((one.facts for one in seen if one.facts is not None), key=_place)
    return Arrival(
        batch_id=strongest.batch_id,
        event_index=strongest.event_index,
        received_at_ms=strongest.received_at_ms,
        outcome=outcome,
        reject=max(rejects) if rejects and outcome is Outcome.REJECTED else None,
        differs=any(differing) if differing and outcome is Outcome.DUPLICATE else None,
        facts=batch or (told[0] if told else None),
    )


def _place(facts: BatchFacts) -> tuple[bool, str, int, int, str, str, str, str]:
    return (
        facts.offset is None,
        facts.topic or "",
        facts.partition or 0,
        facts.offset or 0,
        facts.source,
        facts.msgid,
        facts.did,
        facts.credential,
    )


def _verdict(outcomes: set[Outcome], stored: Stored | None) -> Verdict:
    # What is in flight may still be stored: a refusal is the last word only when nothing else can come.
    if stored is not None or Outcome.STORED in outcomes:
        return Verdict.STORED
    if Outcome.IN_FLIGHT in outcomes:
        return Verdict.IN_FLIGHT
    return Verdict.REJECTED if Outcome.REJECTED in outcomes else Verdict.UNKNOWN


def _newest_reject(arrivals: Iterable[Arrival]) -> Reject | None:
    return next((one.reject for one in reversed(tuple(arrivals)) if one.reject is not None), None)
