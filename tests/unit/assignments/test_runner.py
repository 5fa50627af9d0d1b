"""Reading what a runner sends: tolerant of what is absent, strict with what is there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.assignments.indicators import indicators
from midstream.assignments.runner import Run, Session, Step, Telemetry, TelemetryError, read_telemetry


def test_reads_what_a_runner_sends() -> None:
    sent = {
        "telemetry_id": "t1",
        "user_id": 7,
        "slug": "intro",
        "agent": "vscode",
        "tutorial_started_at": 1_700_000_000_000,
        "last_interaction_at": 1_700_000_100_000.5,
        "workout_session": [{"started_at": 1_700_000_000_000}, {"started_at": 1, "ended_at": 2}],
        "steps": [
            {
                "slug": "00-welcome",
                "position": 0,
                "files": ["a.py"],
                "is_testeable": True,
                "opened_at": 1_700_000_000_000,
                "completed_at": None,
                "is_completed": False,
                "compilations": [
                    {"source_code": "eA==", "stdout": "", "exit_code": 1, "starting_at": 1, "ending_at": 2}
                ],
                "tests": [],
                "ai_interactions": [{"any": ["thing"]}, None],
                "quiz_submissions": [],
            }
        ],
    }
    telemetry = read_telemetry(json.dumps(sent).encode())
    assert telemetry.last_interaction_at == 1_700_000_100_000.5
    assert telemetry.workout_session == (Session(1_700_000_000_000.0), Session(1.0, 2.0))
    assert telemetry.steps is not None
    (step,) = telemetry.steps
    assert (step.slug, step.position, step.opened_at, step.completed_at, step.is_completed) == (
        "00-welcome",
        0,
        1_700_000_000_000.0,
        None,
        False,
    )
    assert (step.compilations, step.tests) == ((Run(1),), ())
    assert step.ai_interactions is not None
    assert len(step.ai_interactions) == 2


_EMPTY: list[Any] = [
    {},
    {"steps": None, "workout_session": None, "last_interaction_at": None},
    {"steps": [], "workout_session": []},
    {"other": {"steps": 5}},
]


@pytest.mark.parametrize("sent", _EMPTY)
def test_what_is_absent_is_empty(sent: Any) -> None:
    telemetry = read_telemetry(json.dumps(sent).encode())
    assert (telemetry.steps or (), telemetry.workout_session or (), telemetry.last_interaction_at) == ((), (), None)


def test_a_step_of_nothing_is_a_step() -> None:
    nothing = dict.fromkeys(Step.__struct_fields__)
    assert read_telemetry(json.dumps({"steps": [{}, nothing]}).encode()) == Telemetry(steps=(Step(), Step()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"steps": [{}, {}, {}, {"opened_at": "now"}]}', "$.steps[3].opened_at: Expected float | null, got str"),
        ('{"steps": [{"tests": [{}, {"exit_code": true}]}]}', "$.steps[0].tests[1].exit_code: Expected"),
        ('{"steps": [{"tests": [{"exit_code": 1e999}]}]}', "$.steps[0].tests[0].exit_code: Number out of range"),
        ('{"steps": [{"compilations": {}}]}', "$.steps[0].compilations: Expected array | null, got object"),
        ('{"steps": [null]}', "$.steps[0]: Expected object, got null"),
        ('{"steps": [{"is_completed": "yes"}]}', "$.steps[0].is_completed: Expected bool | null, got str"),
        ('{"steps": [{"position": 1.5}]}', "$.steps[0].position: Expected int | null, got float"),
        ('{"steps": [{"position": 3000000000}]}', "$.steps[0].position: Expected int <= 2147483647"),
        ('{"steps": [{"slug": 5}]}', "$.steps[0].slug: Expected str | null, got int"),
        (
            '{"workout_session": [{"started_at": 1e17}]}',
            "$.workout_session[0].started_at: Expected float <= 8640000000000000",
        ),
        ('{"last_interaction_at": "2026-01-01"}', "$.last_interaction_at: Expected float | null, got str"),
        ('{"last_interaction_at": ' + "9" * 5_000 + "}", "$.last_interaction_at: "),
        ("[]", "$: Expected object, got array"),
        ("5", "$: Expected object, got int"),
        ('{"steps": [', "$: Input data was truncated"),
        ("", "$: Input data was truncated"),
        ('{"steps": [{"ai_interactions": [' + "[" * 5_000, "$: nested too deep"),
    ],
)
def test_says_where_it_is_none(text: str, message: str) -> None:
    with pytest.raises(TelemetryError) as error:
        read_telemetry(text.encode())
    assert str(error.value).startswith(message)
    assert "`" not in str(error.value)


_names = [*Telemetry.__struct_fields__, *Step.__struct_fields__, "started_at", "ended_at", "exit_code", "x"]
_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_names), inner, max_size=5),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(_names), _anything, max_size=5))
def test_any_object_is_read_or_refused(sent: dict[str, Any]) -> None:
    try:
        found = indicators(read_telemetry(json.dumps(sent).encode()))
    except TelemetryError as error:
        assert str(error)[0] == "$"  # noqa: PT017 - either way is right
        return
    json.dumps(found.metrics, allow_nan=False)
