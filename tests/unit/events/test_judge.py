"""What the judge says of hostile and odd events, and that it says it in time."""

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstream.codes import Reason
from midstream.events.judge import Accepted, Judge, Refused
from midstream.events.schemas import load_schemas
from tests.unit.events.examples import full_events

JUDGE = Judge(load_schemas(), max_event_bytes=512 * 1024, max_depth=64)
EVENTS = full_events()


def raw_event(
    edata: bytes = b'{"type":"t","level":"l","message":"m"}', rest: bytes = b"", mid: bytes = b'"LOG:1"'
) -> bytes:
    return (
        b'{"eid":"LOG","ets":1586431492513,"ver":"3.0","mid":' + mid + b',"actor":{"id":"u","type":"User"},'
        b'"context":{"channel":"c1","env":"e","did":"d1"},"edata":' + edata + rest + b"}"
    )


def refused(raw: bytes) -> Refused:
    verdict = JUDGE.judge(raw)
    assert isinstance(verdict, Refused)
    assert len(verdict.message) <= 500
    return verdict


def accepted(raw: bytes) -> dict[str, Any]:
    verdict = JUDGE.judge(raw)
    assert isinstance(verdict, Accepted), verdict
    return verdict.event


def nested(depth: int) -> bytes:
    """Return an event whose objects are nested ``depth`` deep in all."""
    inside = depth - 3
    return raw_event(
        b'{"type":"t","level":"l","message":"m","params":[' + b'{"a":' * inside + b"1" + b"}" * inside + b"]}"
    )


def test_an_ordinary_event_is_accepted() -> None:
    assert accepted(raw_event()) == json.loads(raw_event())


@pytest.mark.parametrize(
    ("raw", "reason", "pointer"),
    [
        (b"", Reason.INVALID_JSON, ""),
        (b"nonsense", Reason.INVALID_JSON, ""),
        (b"5", Reason.NOT_AN_OBJECT, ""),
        (b'"START"', Reason.NOT_AN_OBJECT, ""),
        (b"null", Reason.NOT_AN_OBJECT, ""),
        (b"[{}]", Reason.NOT_AN_OBJECT, ""),
        (b"{}", Reason.MISSING_MID, "/mid"),
        (b"\xef\xbb\xbf{}", Reason.INVALID_JSON, ""),
        (b'{"a":1} {"b":2}', Reason.INVALID_JSON, ""),
    ],
)
def test_what_is_no_event_at_all(raw: bytes, reason: Reason, pointer: str) -> None:
    verdict = refused(raw)
    assert (verdict.reason, verdict.pointer) == (reason, pointer)
    assert (verdict.mid, verdict.eid, verdict.did, verdict.channel) == ("", "", "", "")


@pytest.mark.parametrize(
    ("raw", "reason", "message"),
    [
        (raw_event(b"{" + b'"a":"' + b"x" * 600_000 + b'"}'), Reason.EVENT_TOO_LARGE, "limit is 524288"),
        (raw_event(b'{"type":"\xff"}'), Reason.INVALID_UTF8, "byte 0xff at offset 157"),
        (raw_event(b'{"type":"\xed\xa0\x80"}'), Reason.INVALID_UTF8, "byte 0xed"),
        (raw_event(rb'{"type":"\ud800"}'), Reason.INVALID_UTF8, r"\ud800 at offset 157"),
        (raw_event(rb'{"type":"\uDC00\ud83d"}'), Reason.INVALID_UTF8, r"\uDC00"),
        (raw_event(rb'{"type":"\ud83d\ud83d\ude00"}'), Reason.INVALID_UTF8, r"\ud83d"),
        (raw_event(rb'{"type":"\\\ud83dx"}'), Reason.INVALID_UTF8, r"\ud83d"),
        (raw_event(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), Reason.TOO_DEEP, "10001 deep"),
        (raw_event(b"[" * 10_000), Reason.TOO_DEEP, "10001 deep"),
        (raw_event(b'{"type":NaN}'), Reason.INVALID_JSON, "NaN is not JSON"),
        (raw_event(b'{"type":-Infinity}'), Reason.INVALID_JSON, "-Infinity is not JSON"),
        (raw_event(b'{"type":01}'), Reason.INVALID_JSON, "delimiter"),
        (raw_event(b'{"type":"\x01"}'), Reason.INVALID_JSON, "control character"),
        (raw_event(b'{"type":"t",}'), Reason.INVALID_JSON, ""),
        (raw_event(b'{"type"'), Reason.INVALID_JSON, ""),
    ],
)  # fmt: skip
def test_a_text_that_cannot_be_read_is_refused_under_its_own_name(raw: bytes, reason: Reason, message: str) -> None:
    verdict = refused(raw)
    assert verdict.reason is reason
    assert message in verdict.message
    assert (verdict.mid, verdict.eid, verdict.did, verdict.channel) == ("LOG:1", "LOG", "d1", "c1")


def test_pairs_of_surrogates_and_escaped_backslashes_are_fine() -> None:
    event = accepted(raw_event(rb'{"type":"\ud83d\ude00","level":"\\ud800","message":"\\\\\ud83d\ude00"}'))
    assert event["edata"] == {"type": "\U0001f600", "level": "\\ud800", "message": "\\\\\U0001f600"}


def test_depth_counts_the_event_itself_and_no_brackets_in_strings() -> None:
    accepted(nested(64))
    assert refused(nested(65)).reason is Reason.TOO_DEEP
    accepted(raw_event(b'{"type":"' + b"[{" * 5_000 + rb'\"[","level":"l","message":"m"}'))
    accepted(raw_event(b'{"type":"t","level":"l","message":"m","params":[' + b'{"a":[{}]},' * 500 + b"{}]}"))


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (raw_event(rest=b',"mid":"LOG:1"'), "/mid"),
        (raw_event(rest=b',"tags":[],"tags":[]'), "/tags"),
        (raw_event(b'{"type":"t","level":"l","message":"m","params":[{},{"a":{"x":1,"x":1}}]}'), "/edata/params/1/a/x"),
        (raw_event(rest=b',"a/b~c":{"x":1,"y":2,"x":3}'), "/a~1b~0c/x"),
        (raw_event(rest=rb',"\u006did":"LOG:2"'), "/mid"),
        (raw_event(rest=b',"x":{"":1,"":2}'), "/x/"),
        # a colon less by the doubled key, a colon more by an escape
        (raw_event(rest=rb',"x":{"k":1,"k":"\u003a"}'), "/x/k"),
        (raw_event(rest=rb',"x":{"k":1,"k":"\u003A"}'), "/x/k"),
    ],
)
def test_a_doubled_key_is_found_wherever_it_stands(raw: bytes, pointer: str) -> None:
    verdict = refused(raw)
    assert (verdict.reason, verdict.pointer) == (Reason.INVALID_JSON, pointer)
    assert "twice" in verdict.message


@pytest.mark.parametrize("text", [rb"a:b::c", rb"\u003a", rb"\u003d \u003c", rb"\\u003a:", rb"\u003A:"])
def test_colons_in_strings_are_no_keys(text: bytes) -> None:
    accepted(raw_event(rest=b',"' + text + b'":"' + text + b'"'))


members = st.lists(
    st.tuples(st.sampled_from(("a", "b", ":", "\\u003a", "c:")), st.deferred(lambda: values)), max_size=4
)
values: st.SearchStrategy[str] = st.one_of(
    st.sampled_from(("1", '"x"', '":"', '"\\u003a"', '"\\u003d:"', "[]", "null")),
    st.lists(st.deferred(lambda: values), max_size=3).map(lambda items: f"[{','.join(items)}]"),
    members.map(lambda pairs: "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"),
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_doubled_keys_are_found_exactly(value: str) -> None:
    doubled = False

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal doubled
        doubled |= len(dict(pairs)) < len(pairs)
        return dict(pairs)

    json.loads(value, object_pairs_hook=note)
    assert isinstance(JUDGE.judge(raw_event(rest=b',"x":' + value.encode())), Refused) == doubled


@pytest.mark.parametrize(
    ("number", "read"),
    [
        (b"18446744073709551615", 18446744073709551615),
        (b"18446744073709551616", 1.8446744073709552e19),
        (b"-9223372036854775809", -9.223372036854775808e18),
        (b"1e999", 1.7976931348623157e308),
        (b"-1e999", -1.7976931348623157e308),
        (b"9" * 5_000, 1.7976931348623157e308),
        (b"1e-999", 0.0),
        (b"0." + b"1" * 5_000, 1 / 9),
        (b"-0", 0),
    ],
)
def test_no_number_is_too_odd(number: bytes, read: float) -> None:
    event = accepted(raw_event(rest=b',"x":[' + number + b"]"))
    assert event["x"] == [read]
    assert orjson.loads(orjson.dumps(event))["x"] == [read]
    refusal = refused(raw_event(b'{"type":' + number + b',"level":"l","message":"m"}'))
    assert (refusal.reason, refusal.pointer) == (Reason.SCHEMA_VIOLATION, "/edata/type")


def test_a_long_mid_is_accepted_and_kept_with_a_refusal() -> None:
    mid = b'"' + b"m" * 10_240 + b'"'
    assert accepted(raw_event(mid=mid))["mid"] == "m" * 10_240
    assert refused(raw_event(b"{}", mid=mid)).mid == "m" * 10_240
    # Not beside an original text that fills a message; there it can still be read.
    assert refused(raw_event(b"{}", mid=b'"' + b"m" * 20_000 + b'"')).mid == ""


def test_the_checks_have_an_order() -> None:
    event: dict[str, Any] = {"ver": "2.0", "eid": "DANCE", "mid": ""}
    assert refused(orjson.dumps(event)).reason is Reason.MISSING_MID
    event["mid"] = "x"
    assert refused(orjson.dumps(event)).reason is Reason.UNKNOWN_EID
    event["eid"] = "LOG"
    assert refused(orjson.dumps(event)).reason is Reason.UNKNOWN_VERSION
    event["ver"] = "3.1"
    assert refused(orjson.dumps(event)).reason is Reason.SCHEMA_VIOLATION


@pytest.mark.parametrize("version", [None, 3.0, ["3.0"], True])
def test_a_version_that_is_no_string_breaks_the_schema(version: object) -> None:
    event = {**json.loads(raw_event()), "ver": version}
    verdict = refused(json.dumps(event).encode())
    assert (verdict.reason, verdict.pointer) == (Reason.SCHEMA_VIOLATION, "/ver")


@pytest.mark.parametrize("context", [None, 5, [], {"did": 5, "channel": None}])
def test_identity_of_a_refused_event_is_what_can_be_read(context: object) -> None:
    verdict = refused(json.dumps({"mid": "x", "eid": "LOG", "ver": "3.0", "context": context}).encode())
    assert (verdict.mid, verdict.eid, verdict.did, verdict.channel) == ("x", "LOG", "", "")


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "unknown keys": (
        {"edata": dict.fromkeys(("type", "level", "message", *(f"k{n}" for n in range(40_000))), "x")},
        "/edata/k0",
    ),
    "wrong elements": ({"tags": [1] * 200_000}, "/tags/0"),
    "one wrong element, the last": ({"tags": [""] * 150_000 + [1]}, "/tags/150000"),
    "wrong objects": ({"context": {"channel": "c", "env": "", "cdata": [{}] * 150_000}}, "/context/cdata/0/type"),
    "one wrong object, the last": (
        {"context": {"channel": "c", "env": "", "cdata": [{"id": "", "type": ""}] * 20_000 + [{"id": "", "type": []}]}},
        "/context/cdata/20000/type",
    ),
    "much that is right beside it": ({"tags": [""] * 150_000, "edata": {"type": "t", "level": "l"}}, "/edata/message"),
    "a long value": ({"edata": {"type": ["x" * 500_000], "level": "l", "message": "m"}}, "/edata/type"),
    "a wide value": ({"edata": {"type": [[]] * 150_000, "level": "l", "message": "m"}}, "/edata/type"),
    "a long key": ({"edata": {"x" * 400_000: 1, "type": "t", "level": "l", "message": "m"}}, ""),
    "a long eid": ({"eid": "E" * 400_000}, "/eid"),
    "a long version": ({"ver": "3" * 400_000}, "/ver"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_event_is_refused_soon_and_shortly(name: str) -> None:
    change, pointer = HOSTILE[name]
    raw = orjson.dumps({**orjson.loads(raw_event()), **change})
    start = time.process_time()
    verdict = refused(raw)
    assert time.process_time() - start < 3  # some 0.1 s; 1 to 5 s if the reference saw it whole
    assert verdict.pointer == pointer
    assert verdict == JUDGE.judge(raw)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 200))
def test_whatever_the_bytes_it_only_answers(junk: bytes, at: int) -> None:
    raw = raw_event()
    for text in (junk, raw[:at] + junk + raw[at:], raw[:at] + junk, raw[:at] + junk + raw[at + len(junk) :]):
        verdict = JUDGE.judge(text)
        if isinstance(verdict, Accepted):
            assert verdict.event["mid"]
            orjson.dumps(verdict.event)


def test_every_event_of_the_specification_takes_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Judge, raw: bytes) -> None:
        raise AssertionError("judged slowly")

    monkeypatch.setattr(Judge, "_judge_slowly", fail)
    for event in EVENTS.values():
        accepted(orjson.dumps(event))
