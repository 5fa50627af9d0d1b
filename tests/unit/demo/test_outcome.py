"""Whether the demo notices when something does not add up."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from rich.console import Console

from deploy.local.demo import outcome as outcome_module
from deploy.local.demo.day import Day, make_day
from deploy.local.demo.outcome import Counts, Outcome, RunReader, compare, expected_codes, expected_counts
from deploy.local.demo.queries import queries_of
from deploy.local.demo.report import show, summarise
from deploy.local.demo.sender import Ledger
from midstream.clickhouse.client import ClickHouse

NOW_MS = 1_763_700_000_000
ROOMS = {
    "devices": 20,
    "reports": 101,
    "device": "SIM-0-000000",
    "state": [{"key": "temperature_c", "value": "41.5", "at": "2025-11-21T04:40:00"}],
}
EXERCISES = {
    "learners": 30,
    "writes": 150,
    "report": [
        {
            "asset_slug": "loops",
            "learners": 10,
            "completed": 1,
            "completion_rate": 52.5,
            "engagement_score": 41.27,
            "frustration_score": 20.0,
            "steps": [
                {"slug": "02-nested-loops", "opened": 8, "stuck": 7, "test_struggles": 3.25},
                {"slug": "03-while", "opened": 0, "stuck": 0, "test_struggles": None},
            ],
        }
    ],
}


@pytest.fixture(scope="module")
def day() -> Day:
    return make_day(1, NOW_MS, 12)


@pytest.fixture
def ledger(day: Day) -> Ledger:
    accepted = {f"b{number}": batch for number, batch in enumerate(day.batches)}
    return Ledger(accepted=accepted, requests=len(accepted))


@pytest.fixture
def outcome(day: Day) -> Outcome:
    batches = list(day.batches)
    return Outcome(
        batches={f"b{number}": (batch.msgid, len(batch.events)) for number, batch in enumerate(batches)},
        counts=expected_counts(day, batches),
        stored_mids=Counter(dict.fromkeys(day.good_mids, 1)),
        differing=3,
        rejects=[
            {"code": code, "count": count, "pointer": "/edata", "message": "[red]it is[/] not"}
            for code, count in expected_codes(batches).items()
        ],
        tables=[{"table": "dimensions", "of_this_run": None, "in_all": 4}],
    )


def test_expected_counts_add_up_and_count_each_good_mid_once(day: Day) -> None:
    counts = expected_counts(day, list(day.batches))
    events = [event for batch in day.batches for event in batch.events]
    assert counts.add_up
    assert counts.received == len(events)
    assert counts.rejected == sum(event.refusal is not None for event in events)
    seen: set[str] = set()
    duplicates = 0
    for event in events:
        if event.refusal is None:
            duplicates += event.mid in seen
            seen.add(event.mid)
    assert counts.duplicate == duplicates > 0
    assert counts.stored == len(seen)


def test_nothing_to_say_when_all_is_there(day: Day, ledger: Ledger, outcome: Outcome) -> None:
    assert compare(day, ledger, outcome) == []


def test_a_batch_that_was_taken_although_its_reply_got_lost_is_expected(
    day: Day, ledger: Ledger, outcome: Outcome
) -> None:
    again = next(batch for batch in day.batches if not expected_codes([batch]))
    number = len(again.events)
    more = replace(
        outcome,
        batches={**outcome.batches, "b-unknown": (again.msgid, number)},
        counts=replace(
            outcome.counts,
            received=outcome.counts.received + number,
            duplicate=outcome.counts.duplicate + number,
        ),
    )
    assert compare(day, ledger, more) == ["1 batches are in `batches` that were not accepted"]
    ledger.unknown = 1
    assert compare(day, ledger, more) == []


def changed(outcome: Outcome, **counts: int) -> Outcome:
    return replace(outcome, counts=replace(outcome.counts, **counts))


def test_each_wrong_count_is_named(day: Day, ledger: Ledger, outcome: Outcome) -> None:
    for name in ("received", "stored", "duplicate", "rejected"):
        is_ = getattr(outcome.counts, name)
        (problem,) = compare(day, ledger, changed(outcome, **{name: is_ - 1}))
        assert problem == f"{name}: {is_ - 1:,} instead of {is_:,}"


def test_a_lost_event_is_named_even_when_the_counts_agree(day: Day, ledger: Ledger, outcome: Outcome) -> None:
    mid = min(day.good_mids)
    other = max(day.good_mids)
    mids = Counter(outcome.stored_mids)
    del mids[mid]
    mids[other] += 1
    problems = compare(day, ledger, replace(outcome, stored_mids=mids))
    assert problems == [
        f"1 good events are not stored, such as {mid}",
        f"1 events are stored more than once, such as {other}",
    ]


def test_a_lost_batch_is_named(day: Day, ledger: Ledger, outcome: Outcome) -> None:
    left = {key: value for key, value in outcome.batches.items() if key != "b0"}
    assert "1 accepted batches are not in `batches`, such as b0" in compare(day, ledger, replace(outcome, batches=left))


def test_a_batch_of_another_size_is_named(day: Day, ledger: Ledger, outcome: Outcome) -> None:
    msgid, events = outcome.batches["b0"]
    batches = {**outcome.batches, "b0": (msgid, events + 1)}
    assert compare(day, ledger, replace(outcome, batches=batches)) == [
        "1 batches have another number of events than were sent in them"
    ]


def test_a_wrong_reason_code_is_named(day: Day, ledger: Ledger, outcome: Outcome) -> None:
    rejects = [{**row, "code": "POISON"} if row["code"] == "MISSING_MID" else row for row in outcome.rejects]
    (problem,) = compare(day, ledger, replace(outcome, rejects=rejects))
    assert problem.startswith("rejected by code: ")


def test_counts_that_do_not_add_up() -> None:
    assert Counts(10, 7, 2, 1).add_up
    assert not Counts(10, 7, 2, 0).add_up


class Arriving:
    """What ClickHouse answers while two batches arrive: between two questions something more may be there."""

    def __init__(self, moments: list[tuple[int, int]]) -> None:
        """``moments``: the batches, of one event each, and the stored events that a question finds; the last stays."""
        self._moments: Iterator[tuple[int, int]] = iter(moments)
        self.batches, self.stored = 0, 0

    def rows(self, sql: str, _parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        self.batches, self.stored = next(self._moments, (self.batches, self.stored))
        if sql.startswith("SELECT batch_id"):
            return [(f"b{number}", f"m{number}", 1) for number in range(self.batches)]
        return [(self.batches, self.stored, 0, 0)]


@pytest.mark.parametrize("moments", [[(1, 1), (2, 1), (2, 1), (2, 2)], [(1, 1), (1, 1), (2, 1), (2, 1), (2, 2)]])
def test_it_waits_for_the_events_of_a_batch_that_comes_while_it_looks(
    day: Day, moments: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome_module, "_POLL_S", 0)
    clickhouse = Arriving(moments)
    reader = RunReader(cast(ClickHouse, clickhouse), day.run, 0)
    ledger = Ledger(accepted={f"b{number}": batch for number, batch in zip(range(2), day.batches, strict=False)})
    told: list[int] = []
    assert reader.wait_until_complete(ledger, 5, told.append)
    assert (clickhouse.stored, told[-1]) == (2, 2)


def summary_of(day: Day, ledger: Ledger, outcome: Outcome) -> dict[str, Any]:
    arrival = {
        "received_at": "2025-11-21T04:40:00.123",
        "outcome": "stored",
        "batch_id": "b0",
        "event_index": 3,
        "batch_did": "did",
        "topic": "telemetry.raw",
        "partition": 1,
        "offset": 17,
    }
    answers = [(query, [{"day": "2025-11-20", "minutes": 12.0}]) for query in queries_of(day.run)]
    problems = compare(day, ledger, outcome)
    accounting = [
        {"minute": "2025-11-21T04:40:00", "channel": "", "received": 3, "in_flight": 1},
        {"minute": "2025-11-21T04:40:00", "channel": "hillview", "received": 1200, "in_flight": 0},
        {"minute": "2025-11-21T04:41:00", "channel": "hillview", "received": 34, "in_flight": 0},
    ]
    seconds = {"sending": 1.0, "arriving": 0.5, "all": 2.0}
    return summarise(day, ledger, outcome, problems, [arrival], answers, accounting, ROOMS, EXERCISES, seconds)


def shown(summary: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=140)
    show(console, summary)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_summary_is_json_and_says_that_all_adds_up(day: Day, ledger: Ledger, outcome: Outcome) -> None:
    summary = summary_of(day, ledger, outcome)
    assert json.loads(json.dumps(summary)) == summary
    assert summary["adds_up"] is True
    assert summary["ledger"] == summary["clickhouse"]
    text = shown(summary)
    counts = outcome.counts
    assert f"{counts.stored:,} + {counts.duplicate:,} + {counts.rejected:,} = {counts.received:,}" in text
    assert "Every event that was sent is accounted for." in text
    assert "[red]it is[/] not" in text  # what a client sent is no markup
    assert "at telemetry.raw, partition 1, offset 17" in text
    assert "04:40:00.123" in text
    assert re.search(r"hillview +1,234 +0\n", text)
    assert re.search(r"\(none\) +3 +1\n", text)
    assert "20 simulated devices reported 101 times" in text
    assert re.search(r"temperature_c +41.5", text)
    assert "30 simulated learners did exercises; their runners wrote 150 times" in text
    assert re.search(r"loops +10 +52.5 +41.3 +20 +02-nested-loops +7 / 8", text)
    for query in queries_of(day.run):
        assert query.title in text
        assert f"has(tags, 'demo-{day.run}')" in query.sql


def test_the_summary_says_what_does_not_add_up(day: Day, ledger: Ledger, outcome: Outcome) -> None:
    summary = summary_of(day, ledger, changed(outcome, stored=1))
    assert summary["adds_up"] is False
    text = shown(summary)
    assert "does not add up: stored: 1 instead of" in text
    assert "is accounted for" not in text


def test_an_outcome_without_anything_can_be_shown(day: Day, outcome: Outcome) -> None:
    nothing = replace(outcome, batches={}, counts=Counts(0, 0, 0, 0), stored_mids=Counter(), rejects=[], tables=[])
    seconds = {"sending": 0.0, "arriving": 0.0, "all": 0.0}
    nobody = {"devices": 0, "reports": 0, "device": "", "state": []}
    nothing_done: dict[str, Any] = {"learners": 0, "writes": 0, "report": []}
    summary = summarise(day, Ledger(), nothing, ["nothing is there"], [], [], [], nobody, nothing_done, seconds)
    assert "nothing is there" in shown(summary)
