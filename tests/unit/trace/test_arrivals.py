"""The verdict on a mid: any sightings, in any order, however often, give the same answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.trace.arrivals import (
    BatchFacts,
    Evidence,
    Outcome,
    Reject,
    Sighting,
    Stored,
    Trace,
    Verdict,
    judge,
    seen_by,
)

STORED = Stored("learning_events", 2_000, 2_050)


def seen(
    evidence: Evidence = Evidence.EVENT,
    batch_id: str = "b1",
    index: int = 0,
    at_ms: int = 1_000,
    *,
    differs: bool | None = None,
    reject: Reject | None = None,
    facts: BatchFacts | None = None,
) -> Sighting:
    return Sighting(evidence, batch_id, index, at_ms, reject, differs, facts)


def facts(credential: str = "app", offset: int | None = 5, source: str = "http") -> BatchFacts:
    place = (None, None) if offset is None else ("telemetry.raw", 1)
    return BatchFacts(source, "m", "d", credential, *place, offset)


def outcomes(trace: Trace) -> list[tuple[str, Outcome]]:
    return [(arrival.batch_id, arrival.outcome) for arrival in trace.arrivals]


REJECT = Reject(3_000, "UNKNOWN_EID", "/eid", "no schema")

sightings = st.builds(
    seen,
    st.sampled_from(Evidence),
    st.sampled_from(["b1", "b2", "b3"]),
    st.integers(0, 2),
    differs=st.none() | st.booleans(),
    reject=st.none() | st.builds(Reject, st.integers(0, 9), st.sampled_from("AB"), st.just(""), st.just("")),
    facts=st.none() | st.builds(facts, st.sampled_from(["app", "other"]), st.none() | st.integers(0, 3)),
)


@given(st.lists(sightings, max_size=12), st.randoms(use_true_random=False))
def test_the_order_and_repetition_of_sightings_do_not_matter(all_: list[Sighting], random: object) -> None:
    again = all_ + all_[: len(all_) // 2]
    random.shuffle(again)  # type: ignore[attr-defined]
    assert judge("m", again) == judge("m", all_)


@given(st.lists(sightings, max_size=12))
def test_an_arrival_is_listed_once_by_what_comes_first(all_: list[Sighting]) -> None:
    trace = judge("m", all_)
    keys = [(arrival.batch_id, arrival.event_index) for arrival in trace.arrivals]
    assert sorted(keys) == sorted({one.key for one in all_})
    for arrival in trace.arrivals:
        places = {one.evidence for one in all_ if one.key == (arrival.batch_id, arrival.event_index)}
        expected = next(
            outcome
            for evidence, outcome in (
                (Evidence.EVENT, Outcome.STORED),
                (Evidence.DUPLICATE, Outcome.DUPLICATE),
                (Evidence.REJECT, Outcome.REJECTED),
                (Evidence.NAMED_BY_DUPLICATE, Outcome.STORED),
                (Evidence.BACKLOG, Outcome.IN_FLIGHT),
            )
            if evidence in places
        )
        assert arrival.outcome is expected


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        ([], Verdict.UNKNOWN),
        ([Evidence.EVENT], Verdict.STORED),
        ([Evidence.EVENT, Evidence.DUPLICATE], Verdict.STORED),
        ([Evidence.EVENT, Evidence.REJECT], Verdict.STORED),
        ([Evidence.EVENT, Evidence.BACKLOG], Verdict.STORED),
        ([Evidence.REJECT], Verdict.REJECTED),
        ([Evidence.BACKLOG], Verdict.IN_FLIGHT),
        ([Evidence.REJECT, Evidence.BACKLOG], Verdict.IN_FLIGHT),
        ([Evidence.NAMED_BY_DUPLICATE, Evidence.DUPLICATE], Verdict.STORED),
        ([Evidence.NAMED_BY_DUPLICATE, Evidence.BACKLOG], Verdict.STORED),
    ],
)
def test_the_verdict_of_several_arrivals(evidence: list[Evidence], verdict: Verdict) -> None:
    all_ = [seen(one, f"b{number}", reject=REJECT) for number, one in enumerate(evidence)]
    assert judge("m", all_).verdict is verdict
    assert judge("m", reversed(all_)).verdict is verdict


def test_arrivals_are_in_the_order_of_receipt() -> None:
    trace = judge("m", [seen(Evidence.DUPLICATE, "b2", at_ms=3), seen(Evidence.EVENT, "b1", at_ms=2, index=7)])
    assert outcomes(trace) == [("b1", Outcome.STORED), ("b2", Outcome.DUPLICATE)]
    assert [arrival.received_at_ms for arrival in trace.arrivals] == [2, 3]


def test_an_arrival_seen_on_its_way_and_at_its_end_is_one() -> None:
    trace = judge("m", [seen(Evidence.BACKLOG), seen(Evidence.EVENT)], stored=STORED)
    assert outcomes(trace) == [("b1", Outcome.STORED)]
    assert trace.stored == STORED


def test_a_reason_is_given_where_nothing_better_came() -> None:
    refused = seen(Evidence.REJECT, reject=REJECT)
    newer = seen(Evidence.REJECT, reject=Reject(9_000, "POISON", "", "again"))
    trace = judge("m", [refused, newer])
    assert (trace.verdict, trace.reject) == (Verdict.REJECTED, newer.reject)
    mended = judge("m", [refused, seen(Evidence.EVENT, "b2", at_ms=1_500)], stored=STORED)
    assert (mended.verdict, mended.reject) == (Verdict.STORED, None)
    assert mended.arrivals[0].reject == REJECT
    parked_then_stored = judge("m", [refused, seen(Evidence.EVENT)])
    assert parked_then_stored.arrivals[0].reject is None


def test_the_table_of_batches_knows_more_than_kafka_and_kafka_more_than_a_spool() -> None:
    spool, raw, table = facts(offset=None, source="spool"), facts(offset=8), facts(offset=9)
    both = [seen(Evidence.BACKLOG, facts=spool), seen(Evidence.BACKLOG, facts=raw)]
    assert judge("m", both).arrivals[0].facts == raw
    assert judge("m", both, batches={"b1": table}).arrivals[0].facts == table
    assert judge("m", both[:1]).arrivals[0].facts == spool
    assert judge("m", [seen()]).arrivals[0].facts is None


def test_an_app_sees_its_own_arrivals_and_no_event() -> None:
    trace = judge(
        "m",
        [
            seen(Evidence.EVENT, "b1", facts=facts("other")),
            seen(Evidence.DUPLICATE, "b2", at_ms=1_100, differs=True, facts=facts("app")),
        ],
        stored=STORED,
        event='{"mid":"m"}',
    )
    view = seen_by(trace, "app")
    assert outcomes(view) == [("b2", Outcome.DUPLICATE)]
    assert (view.verdict, view.stored, view.event, view.complete) == (Verdict.STORED, STORED, None, True)
    assert seen_by(trace, "other").verdict is Verdict.STORED
    nobody = seen_by(trace, "third")
    assert (nobody.verdict, nobody.stored, nobody.arrivals, nobody.complete) == (Verdict.UNKNOWN, None, (), True)


def test_an_app_is_told_nothing_of_anothers_refusal() -> None:
    refused = seen(Evidence.REJECT, "b1", reject=REJECT, facts=facts("other"))
    own = seen(Evidence.BACKLOG, "b2", facts=facts("app"))
    view = seen_by(judge("m", [refused, own]), "app")
    assert (view.verdict, view.reject) == (Verdict.IN_FLIGHT, None)
    assert seen_by(judge("m", [refused]), "app").verdict is Verdict.UNKNOWN
    assert seen_by(judge("m", [refused, own]), "other").reject == REJECT


def test_an_arrival_of_an_unknown_sender_may_be_the_apps() -> None:
    view = seen_by(judge("m", [seen()], stored=STORED), "app")
    assert (view.verdict, view.stored, view.complete) == (Verdict.UNKNOWN, None, False)


@given(st.lists(sightings, max_size=12))
def test_no_app_sees_what_is_anothers(all_: list[Sighting]) -> None:
    view = seen_by(judge("m", all_, stored=STORED, event="{}"), "app")
    assert view.event is None
    assert all(arrival.facts is not None and arrival.facts.credential == "app" for arrival in view.arrivals)
    if not view.arrivals:
        assert (view.verdict, view.stored, view.reject) == (Verdict.UNKNOWN, None, None)


def test_an_app_whose_arrivals_may_not_be_listed_is_not_told_that_there_are_none() -> None:
    others = judge("m", [seen()], batches={"b1": facts("other")}, more_arrivals=True)
    assert (seen_by(others, "app").complete, seen_by(others, "other").complete) == (False, True)
