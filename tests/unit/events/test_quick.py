"""The quick way against the slow one: it may accept only what that accepts, and must make the same row of it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.mix import batches
from midstream.envelope import read_envelope
from midstream.events.judge import Accepted, Judge, Refused
from midstream.events.quick import QuickReader
from tests.unit.events.examples import INVALID, VALID, example_id
from tests.unit.events.test_differential import VALUES
from tests.unit.events.ways import (
    KINDS,
    MAX_BYTES,
    MAX_DEPTH,
    PLAIN,
    QUICK,
    SCHEMAS,
    SETTINGS,
    SLOW,
    agree,
    texts,
    whole,
)


@pytest.mark.parametrize("eid", sorted(SCHEMAS))
def test_an_ordinary_event_of_each_kind_goes_the_quick_way(eid: str) -> None:
    value = whole(eid)
    value["context"].pop("rollup", None)
    assert agree(QUICK, SLOW, [orjson.dumps(value)]) == 1
    assert agree(QUICK, SLOW, [json.dumps(value, indent=1).encode()]) == 1


def test_the_measured_mix_goes_the_quick_way_but_for_what_is_invalid() -> None:
    for batch in batches(7, 400, 50, 1_790_000_000_000):
        raws = [bytes(raw) for raw in read_envelope(batch.body).events]
        assert agree(QUICK, SLOW, raws) == batch.events - batch.invalid


@pytest.mark.parametrize("path", [*VALID, *INVALID], ids=example_id)
def test_examples(path: Path) -> None:
    raw = path.read_bytes()
    if path in INVALID:
        raw = json.dumps(json.loads(raw)["event"]).encode()
        assert QUICK.read([raw]) == [None]
    agree(QUICK, SLOW, [raw])


def test_the_types_know_every_key_of_the_envelope_and_no_other() -> None:
    """One that the types lack would only make events slow; one too many is wrong."""
    schema = json.loads((Path(__file__).parents[3] / "schemas/telemetry/3.0/envelope.json").read_text())
    rollup = json.loads((Path(__file__).parents[3] / "schemas/telemetry/3.0/common.json").read_text())["$defs"][
        "rollup"
    ]

    def keys(properties: dict[str, Any]) -> set[str]:
        return set(properties["properties"])

    from midstream.events import typed

    context = schema["properties"]["context"]
    for kind, properties in (
        (typed.Envelope, schema),
        (typed.Actor, schema["properties"]["actor"]),
        (typed.Context, context),
        (typed.Pdata, context["properties"]["pdata"]),
        (typed.Thing, schema["properties"]["object"]),
    ):
        assert set(kind.__struct_fields__) == keys(properties)
    assert set(typed.Cdata.__annotations__) == keys(context["properties"]["cdata"]["items"])
    assert set(typed.Rollup.__annotations__) == keys(rollup)


@SETTINGS
@given(st.lists(texts(KINDS), min_size=1, max_size=4))
def test_what_the_quick_way_accepts_the_slow_way_accepts_and_the_row_is_the_same(raws: list[bytes]) -> None:
    agree(QUICK, SLOW, raws)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=3), st.integers(0, 300), st.integers(0, 5))
def test_junk_beside_it_takes_no_event_along(junk: list[bytes], at: int, cut: int) -> None:
    raw = orjson.dumps(PLAIN["INTERACT"])
    agree(QUICK, SLOW, [raw, *junk, raw[:at] + b"".join(junk) + raw[at + cut :], raw])
    assert QUICK.read([*junk, raw])[-1] is not None


@pytest.mark.parametrize("place", ["x", "edata", "context", "object", "rollup", "tags", "cdata"])
@pytest.mark.parametrize(
    "pair",
    [
        b'"k":1,"k":2', b'"k":1,"\\u006b":2', b'"k":1,"k":"\\u003a"', b'"k":{"a":1,"a":1}', b'"id":"a","id":"b"',
        b'"k":[{"a":1,"b":2,"a":"a:b"}]',
    ],
)  # fmt: skip
def test_no_doubled_key_is_accepted_wherever_it_stands(place: str, pair: bytes) -> None:
    value = json.loads(orjson.dumps({**PLAIN["HEARTBEAT"], "edata": {}, "object": {}, "tags": []}))
    value["context"].update(rollup={}, cdata=[{}])
    raw = {
        "x": lambda: orjson.dumps(value)[:-1] + b',"x":{' + pair + b"}}",
        "edata": lambda: orjson.dumps(value).replace(b'"edata":{', b'"edata":{' + pair),
        "context": lambda: orjson.dumps(value).replace(b'"context":{', b'"context":{' + pair + b","),
        "object": lambda: orjson.dumps(value).replace(b'"object":{', b'"object":{' + pair),
        "rollup": lambda: orjson.dumps(value).replace(b'"rollup":{', b'"rollup":{' + pair),
        "tags": lambda: orjson.dumps(value).replace(b'"tags":[', b'"tags":[{' + pair + b"}"),
        "cdata": lambda: orjson.dumps(value).replace(b'"cdata":[{', b'"cdata":[{' + pair),
    }[place]()
    assert QUICK.read([raw]) == [None]
    assert isinstance(SLOW.judge(raw), Refused)


@pytest.mark.parametrize("depth", range(1, 8))
def test_no_event_nested_deeper_than_the_limit_is_accepted(depth: int) -> None:
    value = json.loads(orjson.dumps({**PLAIN["HEARTBEAT"], "edata": {"a": [[[]]]}}))
    for cdata in ([], [{"id": "a", "type": "b"}]):
        value["context"]["cdata"] = cdata
        raw = orjson.dumps(value)
        (event,) = QuickReader(SCHEMAS, MAX_BYTES, depth).read([raw])
        verdict = Judge(SCHEMAS, MAX_BYTES, depth).judge(raw)
        assert event is None or isinstance(verdict, Accepted)
        assert (event is not None) == (depth >= 5)


@pytest.mark.parametrize("around", [0, 1, 8, 60])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_deep_event_is_found_among_flat_ones(opening: bytes, around: int) -> None:
    """Most batches have more brackets in all than one event may be deep."""
    flat = [orjson.dumps({**PLAIN["HEARTBEAT"], "edata": {"a": [{}, [], "[{" * (n % 4)]}}) for n in range(around)]
    closing = b"]" if opening == b"[" else b"}"
    for levels in (MAX_DEPTH - 2, MAX_DEPTH - 1):
        value = opening * levels + b"1" + closing * levels
        raw = orjson.dumps({**PLAIN["HEARTBEAT"], "edata": {"x": "@"}}).replace(b'"@"', value)
        is_within = levels + 2 <= MAX_DEPTH
        assert agree(QUICK, SLOW, [*flat, raw, *flat]) == 2 * around + is_within
        assert isinstance(SLOW.judge(raw), Accepted) == is_within


def test_no_event_longer_than_the_limit_is_accepted() -> None:
    raw = orjson.dumps(PLAIN["LOG"])
    assert QuickReader(SCHEMAS, len(raw), MAX_DEPTH).read([raw]) != [None]
    assert QuickReader(SCHEMAS, len(raw) - 1, MAX_DEPTH).read([raw]) == [None]


def test_one_doubtful_event_among_many_is_the_only_one_not_accepted() -> None:
    doubtful = [
        orjson.dumps(PLAIN["LOG"]).replace(b'"edata":{', b'"edata":{"type":1e999,'),
        orjson.dumps(PLAIN["LOG"])[:-1] + b',"unknown":1}',
        orjson.dumps(PLAIN["LOG"])[:-1] + b',"mid":"again"}',
        orjson.dumps(PLAIN["LOG"]).replace(b'"edata":{', b'"edata":{"message":"\xff",'),
        orjson.dumps(PLAIN["LOG"]).replace(b'"edata":{', b'"edata":{"surprise":1,'),
        b"null",
    ]
    good = [orjson.dumps({**PLAIN[eid], "mid": f"m{number}"}) for number, eid in enumerate([*SCHEMAS] * 3)]
    noise = random.Random(5)
    for _ in range(10):
        raws = [*good, *doubtful]
        noise.shuffle(raws)
        read = QUICK.read(raws)
        assert [raw for raw, event in zip(raws, read, strict=True) if event is None] == [
            raw for raw in raws if raw in doubtful
        ]
        assert all(
            event is None or f'"mid":"{event.envelope.mid}"'.encode() in raw
            for raw, event in zip(raws, read, strict=True)
        )


@pytest.mark.parametrize(
    "text",
    [
        *(rb"\ud800", rb"\ud800x", rb"\udc00", rb"\ud800\ud800", rb"\ud800\u0041", rb"\ud83d\ude0", rb"\ud83d\n"),
        *(rb"\ud83d\ud83d\ude00", rb"\ud83d\ude00\ude00", rb"\ud83dabcdefghijk", rb"\ud83d\udbff", rb"\ud83d\ue000"),
        *(rb"\uDBFF\uDFFF", rb"\ud83d\ude00", rb"\\ud800", rb"\\\ud83d\ude00", rb"\u0000", b"\xed\xa0\x80", b"\xc3"),
    ],
)
@pytest.mark.parametrize("place", ["mid", "tags", "rollup", "rollup key", "edata", "edata key", "cdata"])
def test_strings_are_read_as_strictly_as_by_the_slow_way(text: bytes, place: str) -> None:
    value = json.loads(orjson.dumps({**PLAIN["HEARTBEAT"], "edata": {"k": "v"}, "object": {}}))
    value["context"].update(rollup={"k": "v"}, cdata=[])
    marked: dict[str, dict[str, Any]] = {
        "mid": {"mid": "@"},
        "tags": {"tags": ["a", "@"]},
        "rollup": {"context": {**value["context"], "rollup": {"l1": "@"}}},
        "rollup key": {"context": {**value["context"], "rollup": {"@": "x"}}},
        "edata": {"edata": {"a": ["@"]}},
        "edata key": {"edata": {"a": {"@": 1}}},
        "cdata": {"context": {**value["context"], "cdata": [{"id": "@", "type": "t"}]}},
    }
    raw = orjson.dumps(value | marked[place]).replace(b"@", text)
    assert agree(QUICK, SLOW, [raw]) == isinstance(SLOW.judge(raw), Accepted)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), VALUES, max_size=4), st.booleans())
def test_edata_of_any_shape_is_kept_as_the_slow_way_keeps_it(edata: dict[str, Any], is_ascii: bool) -> None:
    value = {**PLAIN["HEARTBEAT"], "edata": edata}
    agree(QUICK, SLOW, [orjson.dumps(value), json.dumps(value, ensure_ascii=is_ascii).encode()])
