"""The quick way against the slow one: it may accept only what that accepts, and must make the same row of it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.mix import batches
from midstream.envelope import read_envelope
from midstream.events.focus import mark
from midstream.events.judge import Accepted, Judge, Refused
from midstream.events.quick import QuickReader
from midstream.events.schemas import BASE_URI, Schemas, load_schemas
from midstream.events.typed import ValidEvent, from_parsed
from midstream.receipt import Receipt
from processors.validate.rows import LateWindow, Rows
from tests.unit.events.examples import INVALID, VALID, example_id, full_events
from tests.unit.events.test_differential import EVENTS, OWN, OWN_EVENT, VALUES, mutated

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
SCHEMAS = load_schemas()
QUICK = QuickReader(SCHEMAS, MAX_BYTES, MAX_DEPTH)
RECEIPT = Receipt(
    batch_id="b", received_at_ms=1_790_000_000_000, events=1, sequence=0, collector="k", bytes=1, did="of the batch"
)


def slow_judge(schemas: Schemas) -> Judge:
    slow = {eid: replace(schema, fast=None, focused=None, fast_edata=None) for eid, schema in schemas.items()}
    return Judge(slow, MAX_BYTES, MAX_DEPTH)


SLOW = slow_judge(SCHEMAS)


def row(event: ValidEvent, raw: bytes) -> str:
    rows = Rows(LateWindow(400, 1))
    rows.add(RECEIPT, [0], [event], [raw])
    ((made),) = rows.to_arrow().to_pylist()
    return repr(made)  # in which -0.0 is not 0.0


def agree(quick: QuickReader, slow: Judge, raws: list[bytes]) -> int:
    """Check what is said of texts, together and one by one; return how many were accepted."""
    together = quick.read(raws)
    for raw, event in zip(raws, together, strict=True):
        (alone,) = quick.read([raw])
        assert (alone is None) == (event is None), raw
        if event is None or alone is None:
            continue
        verdict = slow.judge(raw)
        assert isinstance(verdict, Accepted), (raw, verdict)
        expected = row(from_parsed(verdict.event, raw), raw)
        assert row(event, raw) == expected
        assert row(alone, raw) == expected
    return sum(event is not None for event in together)


def whole(eid: str) -> dict[str, Any]:
    """Return an event with every field, and its time as most clients send it."""
    return {**EVENTS[eid], "ets": 1_789_999_999_123}


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


ODD_TEXTS = st.sampled_from(
    (
        *(b'"\\u003a"', b'"\\u003A"', b'"\\ud83d\\ude00"', b'"\\ud800"', b'"\\uDC00"', b'"\\\\ud800"', b'"\\u00e9"'),
        *(b'"\\/"', b'"\\n"', b'"\\q"', b'"\xc3\xa9"', b'"\xff"', b'"\xed\xa0\x80"', b'"\x01"', b'"a:b"', b'":"'),
        b'""',
        *(b"1e999", b"-1e999", b"1e-999", b"-0", b"-0.0", b"1.0", b"1.50", b"1e5", b"01", b"1.", b"+1", b"NaN", b"0x1"),
        *(b"18446744073709551615", b"18446744073709551616", b"-9223372036854775809", b"1" * 400, b"1790000000000.0"),
        *(b"9007199254740993.0", b"0.30000000000000004", b"5e-324", b"1E+2", b"17900000000000e-1", b"true", b"nul"),
        *(b"null", b"{}", b"[]", b" ", b"\n", b"\t", b"\x0c", b",", b":", b"}", b"]", b"{", b'"', b"\\"),
        *(b"\xef\xbb\xbf", b"[" * 15 + b"]" * 15, b'{"a":' * 25 + b"1" + b"}" * 25),
        *(b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b'{"l1":"x","l1":"y"}', b'{"id":"i","type":"t","id":"i"}'),
        *(b'{"a":1,"a":"\\u003a"}', b'{"l1":"\\u003a","l1":""}', b'{"l1":"x","l9":1}', b'{"l1":null}', b'{"l1":"x"}'),
        *(b'{"id":"a","type":"b","surprise":":"}', b'[{"id":"a","type":"b"}]', b'[{"type":"b","id":"a"},{"id":"c"}]'),
        *(b'["x",1]', b'[""]', b'{"id":"x","pid":null}'),
    )
)  # fmt: skip
KEYS = (
    b'"mid"',
    b'"ets"',
    b'"edata"',
    b'"context"',
    b'"channel"',
    b'"rollup"',
    b'"cdata"',
    b'"id"',
    b'"x"',
    b'"m\\u0069d"',
)
_VALUE_AT = re.compile(rb'(?<=:)\s*("(?:[^"\\]|\\.)*"|[-0-9.eE]+|\[\]|\{\}|true|false|null)', re.DOTALL)
_MEMBER_AT = re.compile(rb"(?<=[{,])(?=\s*\")")


@st.composite
def texts(draw: Callable[..., Any], events: st.SearchStrategy[dict[str, Any]]) -> bytes:
    """An event, a few of its values changed, written in one of several ways, then changed as text."""
    event = draw(events)
    if draw(st.integers(0, 3)):
        event["ets"] = draw(st.integers(999_999_999_990, 1_000_000_000_010) | st.just(1_789_999_999_123))
    raw: bytes = draw(
        st.sampled_from(
            (orjson.dumps, lambda value: json.dumps(value, ensure_ascii=draw(st.booleans()), indent=None).encode())
        )
    )(event)
    for _ in range(draw(st.integers(0, 2))):
        odd = draw(ODD_TEXTS)
        change = draw(st.sampled_from(("value", "value", "member", "anywhere", "twice")))
        if change == "value" and (found := list(_VALUE_AT.finditer(raw))):
            match = draw(st.sampled_from(found))
            raw = raw[: match.start(1)] + odd + raw[match.end(1) :]
        elif change == "member" and (found := list(_MEMBER_AT.finditer(raw))):
            at = draw(st.sampled_from(found)).start()
            raw = raw[:at] + draw(st.sampled_from(KEYS)) + b":" + odd + b"," + raw[at:]
        elif change == "twice" and (found := list(re.finditer(rb'[{,]("[^"]*":(?:"[^"]*"|[0-9.]+))(?=[,}])', raw))):
            match = draw(st.sampled_from(found))
            raw = raw[: match.end(1)] + b"," + match[1] + raw[match.end(1) :]
        else:
            at = draw(st.integers(0, len(raw)))
            raw = raw[:at] + odd + raw[at + draw(st.integers(0, 3)) :]
    return raw


PLAIN = {eid: whole(eid) for eid in SCHEMAS}
for _one in PLAIN.values():
    _one["context"] = {**_one["context"], "rollup": {"l1": "x"}}
KINDS = mutated(PLAIN) | st.sampled_from(sorted(PLAIN)).map(lambda eid: json.loads(json.dumps(PLAIN[eid])))
SETTINGS = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])


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


# A deployment's own schemas.


def load(folder: Path, **documents: Any) -> Schemas:
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document), "utf-8")
    return load_schemas(folder)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Schemas:
    return load(tmp_path_factory.mktemp("schemas"), own=OWN)


@SETTINGS
@given(raws=st.lists(texts(mutated({"OWN": {**OWN_EVENT, "ets": 1_789_999_999_123}})), min_size=1, max_size=3))
def test_they_agree_on_every_proven_keyword(own: Schemas, raws: list[bytes]) -> None:
    agree(QuickReader(own, MAX_BYTES, MAX_DEPTH), slow_judge(own), raws)
    for raw in raws:
        assert Judge(own, MAX_BYTES, MAX_DEPTH).judge(raw) == slow_judge(own).judge(raw)


EDATA = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}


@pytest.mark.parametrize(
    ("document", "is_quick"),
    [
        ({}, True),
        ({"title": "TICKET", "$schema": "https://json-schema.org/draft/2020-12/schema"}, True),
        ({"properties": {"edata": EDATA}}, True),
        ({"type": "object", "$ref": "envelope.json", "properties": {"edata": EDATA}}, True),
        ({"$ref": BASE_URI + "envelope.json", "properties": {"eid": {"const": "TICKET"}, "edata": EDATA}}, True),
        ({"$defs": {"e": EDATA}, "properties": {"edata": {"$ref": "#/$defs/e"}}}, True),
        ({"properties": {"edata": False}}, True),
        ({"properties": {"eid": {"const": "OTHER"}, "edata": EDATA}}, False),
        ({"properties": {"actor": {"required": ["name"]}}}, False),
        ({"required": ["object"]}, False),
        ({"additionalProperties": False}, False),
        ({"allOf": [{"required": ["object"]}]}, False),
        ({"$ref": "interact.json"}, False),
        ({"$ref": "common.json#/$defs/ref"}, False),
        ({"type": ["object", "null"]}, False),
        ({"type": "array"}, False),
        ({"properties": {"edata": {"$id": "elsewhere/", **EDATA}}}, False),
        ({"properties": {"edata": {"properties": {"id": {"pattern": "x"}}}}}, False),
    ],
)
def test_only_a_schema_that_says_nothing_beyond_edata_is_quick(
    tmp_path: Path, document: dict[str, Any], is_quick: bool
) -> None:
    schemas = load(tmp_path, ticket=document)
    assert (schemas["TICKET"].fast_edata is not None) == is_quick
    quick, slow = QuickReader(schemas, MAX_BYTES, MAX_DEPTH), slow_judge(schemas)
    for edata in ({}, {"id": "a"}, {"id": 1}):
        agree(quick, slow, [orjson.dumps({**PLAIN["HEARTBEAT"], "eid": "TICKET", "edata": edata})])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), VALUES, max_size=4), st.booleans())
def test_edata_of_any_shape_is_kept_as_the_slow_way_keeps_it(edata: dict[str, Any], is_ascii: bool) -> None:
    value = {**PLAIN["HEARTBEAT"], "edata": edata}
    agree(QUICK, SLOW, [orjson.dumps(value), json.dumps(value, ensure_ascii=is_ascii).encode()])


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
