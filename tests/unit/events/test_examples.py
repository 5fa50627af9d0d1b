"""Every example file is a test, and every rule of the specification has an example."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from midstream.events.judge import Accepted, Judge, Refused
from midstream.events.schemas import load_schemas
from midstream.events.text import escape_pointer
from tests.unit.events.examples import FOLDER, INVALID, VALID, example_id, full_events

SPECIFICATION = {
    *("START", "END", "IMPRESSION", "INTERACT", "ASSESS", "RESPONSE", "INTERRUPT", "FEEDBACK", "SHARE"),
    *("AUDIT", "ERROR", "HEARTBEAT", "LOG", "SEARCH", "METRICS", "SUMMARY", "EXDATA"),
}
JUDGE = Judge(load_schemas(), max_event_bytes=512 * 1024, max_depth=64)


def test_there_is_one_schema_for_each_eid_of_the_specification() -> None:
    assert set(load_schemas()) == SPECIFICATION
    assert len(SPECIFICATION) == 17


@pytest.mark.parametrize("eid", sorted(SPECIFICATION))
def test_each_eid_has_examples_of_both_kinds(eid: str) -> None:
    assert list((FOLDER / eid.lower() / "valid").glob("*.json"))
    assert list((FOLDER / eid.lower() / "invalid").glob("*.json"))


@pytest.mark.parametrize("path", VALID, ids=example_id)
def test_a_valid_example_is_accepted(path: Path) -> None:
    raw = path.read_bytes()
    verdict = JUDGE.judge(raw)
    assert isinstance(verdict, Accepted), verdict
    expected = json.loads(raw)
    assert {**verdict.event, "ets": 0} == {**expected, "ets": 0}


@pytest.mark.parametrize("path", INVALID, ids=example_id)
def test_an_invalid_example_is_refused_as_it_says(path: Path) -> None:
    example = json.loads(path.read_bytes())
    verdict = JUDGE.judge(json.dumps(example["event"]).encode())
    assert isinstance(verdict, Refused)
    assert {"code": verdict.reason.value, "pointer": verdict.pointer} == example["expect"]
    assert verdict.message


FREE = {"extra", "filters", "sort"}  # objects with anything inside
LISTS_OF_FREE = {"params", "values", "resvalues", "topn", "summary"}


def typed_places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each value that a schema has a type for."""
    if path == ("context", "rollup"):
        return
    if path:
        yield path
    if isinstance(value, dict) and path[-1:] not in {(name,) for name in FREE}:
        for key, item in value.items():
            yield from typed_places(item, (*path, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            if path[-1] in LISTS_OF_FREE:
                yield (*path, at)
            else:
                yield from typed_places(item, (*path, at))


NULLED = [
    pytest.param(event, path, id=f"{eid}{escape_pointer(*path)}")
    for eid, event in full_events().items()
    for path in typed_places(event)
]


@pytest.mark.parametrize(("event", "path"), NULLED)
def test_null_fails_wherever_a_type_is_written(event: dict[str, Any], path: tuple[str | int, ...]) -> None:
    event = copy.deepcopy(event)
    holder: Any = event
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = None
    verdict = JUDGE.judge(json.dumps(event).encode())
    assert isinstance(verdict, Refused)
    assert verdict.pointer == escape_pointer(*path)
