"""The fast validator against the reference: it may accept nothing that the reference refuses, on whatever is sent."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midstream.events.judge import Accepted, Judge, Refused
from midstream.events.schemas import Schemas, load_schemas
from tests.unit.events.examples import full_events

SCHEMAS = load_schemas()
EVENTS = full_events()

ODD_NUMBERS = (
    *(0, -0.0, -1, -1.0, -2, -1.0000000000000002, 0.5, 1.0, 1e300, -1e300, 5e-324, sys.float_info.max),
    *(2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1.8446744073709552e19),
)
VALUES = st.one_of(
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from((None, True, False, "", "x", "\u0000", "é\U0001f600", "3.0", "3.1", "2.0")),
    st.sampled_from(([], {}, [None], [[]], {"id": 1})),
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(2**63), 2**64 - 1),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(st.characters(codec="utf-8"), max_size=5),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(("id", "type", "ver", "a")), inner, max_size=3),
        ),
        max_leaves=5,
    ),
)
KEYS = st.sampled_from(("id", "type", "ver", "rollup", "params", "duration", "surprise", "", "a/b~", "é"))


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        found += places(item, (*path, key))
    return found


@st.composite
def mutated(draw: Callable[..., Any], events: dict[str, dict[str, Any]]) -> dict[str, Any]:
    event = copy.deepcopy(events[draw(st.sampled_from(sorted(events)))])
    for _ in range(draw(st.integers(0, 4))):
        path = draw(st.sampled_from(places(event)))
        holder: Any = event
        for part in path[:-1]:
            holder = holder[part]
        target = holder[path[-1]] if path else event
        change = draw(st.sampled_from(("drop", "replace", "add")))
        if change == "add" and isinstance(target, dict):
            target[draw(KEYS)] = copy.deepcopy(draw(VALUES))
        elif change == "add" and isinstance(target, list):
            target.append(copy.deepcopy(draw(VALUES)))
        elif change == "drop" and path:
            del holder[path[-1]]
        elif path:
            holder[path[-1]] = copy.deepcopy(draw(VALUES))
    return event


def agree(schemas: Schemas, eid: str, event: dict[str, Any]) -> None:
    schema = schemas[eid]
    assert schema.fast is not None
    assert schema.fast.is_valid(event) == schema.reference.is_valid(event)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(EVENTS), st.sampled_from(sorted(SCHEMAS)))
def test_fast_and_reference_agree(event: dict[str, Any], other: str) -> None:
    # No harmless difference is known: where they differ at all, this fails, in whichever direction.
    eid = event.get("eid")
    agree(SCHEMAS, eid if isinstance(eid, str) and eid in SCHEMAS else other, event)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(EVENTS))
def test_the_judge_says_what_the_slow_way_says(event: dict[str, Any]) -> None:
    judge = Judge(SCHEMAS, max_event_bytes=512 * 1024, max_depth=64)
    without_fast = {eid: type(schema)(schema.eid, schema.reference, None) for eid, schema in SCHEMAS.items()}
    slow = Judge(without_fast, max_event_bytes=512 * 1024, max_depth=64)
    raw = orjson.dumps(event)
    verdict = judge.judge(raw)
    assert verdict == slow.judge(raw)
    if isinstance(verdict, Accepted):
        assert SCHEMAS[event["eid"]].reference.is_valid(json.loads(raw))
    else:
        assert len(verdict.message) <= 500


OWN = {
    "$defs": {"short": {"type": "string", "minLength": 1, "maxLength": 3}},
    "properties": {
        "edata": {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": {"$ref": "#/$defs/short"},
                "type": {"enum": ["x", "é\U0001f600", ""]},
                "ver": {"const": "3.0"},
                "duration": {"type": ["integer", "null"], "minimum": -1, "exclusiveMaximum": 9007199254740993},
                "a": {"type": "number", "exclusiveMinimum": 0, "maximum": 18446744073709551615},
                "params": {"type": "array", "items": {"allOf": [{"type": ["string", "boolean"]}, {"maxLength": 1}]}},
                "rollup": {"$ref": "common.json#/$defs/rollup"},
            },
            "additionalProperties": {"type": "integer"},
        }
    },
}
OWN_EVENT = {
    **EVENTS["EXDATA"],
    "eid": "OWN",
    "edata": {
        "id": "abc",
        "type": "x",
        "ver": "3.0",
        "duration": 1,
        "a": 2.5,
        "params": ["x", True],
        "rollup": {"l1": ""},
    },
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Schemas:
    folder: Path = tmp_path_factory.mktemp("schemas")
    (folder / "own.json").write_text(json.dumps(OWN), "utf-8")
    return load_schemas(folder)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated({"OWN": OWN_EVENT}))
def test_they_agree_on_every_keyword_that_counts_as_proven(own: Schemas, event: dict[str, Any]) -> None:
    agree(own, "OWN", event)


def test_the_examples_of_the_differential_test_are_valid(own: Schemas) -> None:
    for eid, event in {**EVENTS, "OWN": OWN_EVENT}.items():
        verdict = Judge(own, 512 * 1024, 64).judge(orjson.dumps(event))
        assert not isinstance(verdict, Refused), (eid, verdict)
