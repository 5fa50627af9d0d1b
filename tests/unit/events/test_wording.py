"""Refusals are worded as by the reference alone, however many events and faults there are."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given

from midstream.events.focus import mark
from midstream.events.judge import Accepted, Judge, Refused
from midstream.events.typed import from_parsed
from tests.unit.events.examples import INVALID, VALID, full_events
from tests.unit.events.ways import (
    KINDS,
    MAX_BYTES,
    MAX_DEPTH,
    PLAIN,
    SCHEMAS,
    SETTINGS,
    SLOW,
    row,
    texts,
)

FAULTS: dict[str, dict[str, Any]] = {
    "several elements": {"tags": [1, "a", 2, None, 3]},
    "several objects": {"context": {"channel": "c", "env": "e", "cdata": [{}, {"id": "i", "type": "t"}, {"id": 1}, 5]}},
    "several members": {"actor": {"id": 1, "type": 2}, "context": {"channel": "", "env": 3, "pdata": {"pid": 4}}},
    "members and what holds them": {"actor": [], "object": {"id": 1, "rollup": {"l1": 2, "l4": None}}, "tags": {}},
    "at every depth": {"edata": {"type": 1, "surprise": 2, "params": [{}, 1]}, "tags": [[]], "ver": 3, "ets": "x"},
    "elements within elements": {"edata": {"type": "t", "level": "l", "message": "m", "params": [{}, 1, {}, [2], "x"]}},
    "of the wrong kind": {"edata": [1, 2], "context": "x", "actor": None},
}


@pytest.mark.parametrize("name", FAULTS)
def test_of_several_faults_the_one_that_the_reference_alone_would_name(name: str) -> None:
    raw = orjson.dumps({**PLAIN["LOG"], **FAULTS[name]})
    verdict = Judge(SCHEMAS, MAX_BYTES, MAX_DEPTH).judge(raw)
    assert isinstance(verdict, Refused)
    assert verdict == SLOW.judge(raw)


def test_the_reference_looks_at_faulty_places_alone() -> None:
    event = json.loads(orjson.dumps({**PLAIN["LOG"], **FAULTS["several elements"]}))
    schema = SCHEMAS["LOG"]
    assert schema.focused is not None
    everywhere = [error.absolute_path for error in schema.reference.iter_errors(event)]
    assert [list(path) for path in everywhere] == [["tags", 0], ["tags", 2], ["tags", 3], ["tags", 4]]
    assert [error.absolute_path for error in schema.focused.iter_errors(mark(event, everywhere))] == everywhere
    (only,) = schema.focused.iter_errors(mark(event, everywhere[2:3]))
    assert list(only.absolute_path) == ["tags", 3]


@SETTINGS
@given(texts(KINDS))
def test_every_refusal_is_worded_as_by_the_reference_alone(raw: bytes) -> None:
    assert Judge(SCHEMAS, MAX_BYTES, MAX_DEPTH).judge(raw) == SLOW.judge(raw)


def test_many_and_one_are_judged_alike() -> None:
    judge = Judge(SCHEMAS, MAX_BYTES, MAX_DEPTH)
    raws = [json.dumps(json.loads(path.read_bytes())["event"]).encode() for path in INVALID]
    raws += [path.read_bytes() for path in VALID] + [orjson.dumps(event) for event in full_events().values()]
    for raw, verdict in zip(raws, judge.judge_many(raws), strict=True):
        alone = judge.judge(raw)
        if isinstance(verdict, Refused):
            assert verdict == alone
        else:
            assert isinstance(alone, Accepted)
            assert row(verdict, raw) == row(from_parsed(alone.event, raw), raw)
