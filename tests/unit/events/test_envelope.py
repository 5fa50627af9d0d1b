"""Both ways of reading a body give the same events, whatever stands in them."""

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstream import envelope
from midstream.envelope import Batch, EnvelopeError, holds_more_than, read_envelope

MIB = 1024 * 1024

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
bodies = st.fixed_dictionaries(
    {"events": st.lists(json_values, max_size=6)},
    optional={
        "id": json_values,
        "params": json_values
        | st.fixed_dictionaries({}, optional={"did": json_values, "msgid": json_values, "key": json_values}),
        "ets": json_values | st.integers(0, 2_000_000_000_000),
        "ts": json_values | st.datetimes().map(lambda moment: moment.isoformat()),
        "x": json_values,
    },
)


def texts(batch: Batch) -> list[bytes]:
    return [bytes(element) for element in batch.events]


def facts(batch: Batch) -> tuple[str, str, int | None]:
    return batch.did, batch.msgid, batch.sent_at_ms


@settings(deadline=None, max_examples=300)
@given(bodies, st.booleans(), st.sampled_from((None, 1, "\t")))
def test_the_scanner_reads_every_json_body_as_msgspec_does(document: Any, ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    try:
        quick = envelope.read_quickly(body)
    except EnvelopeError:
        quick = None
    scanned = envelope._scan_envelope(body)
    if quick is not None:
        assert texts(quick) == texts(scanned)
        assert facts(quick) == facts(scanned)
    assert [json.loads(text) for text in texts(scanned)] == document["events"]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.binary(max_size=12)), st.binary(max_size=12))
def test_junk_is_read_or_refused_never_more(elements: list[bytes], rest: bytes) -> None:
    for body in (b'{"events":[' + b",".join(elements) + b"]" + rest + b"}", rest):
        try:
            batch = read_envelope(body)
        except EnvelopeError:
            continue
        assert all(text in body for text in texts(batch))


GOOD = [b'{"mid":"a"}', b'{"mid":"b"}']


@pytest.mark.parametrize(
    "bad",
    [
        b'{"mid":"x","edata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
        b"[" * 10_000 + b"]" * 10_000,
        b'{"ets":NaN}',
        b"-Infinity",
        b'{"mid":"\xff\xfe"}',
        b'{"\xff":1}',
        rb'{"mid":"\ud800"}',
        rb'{"mid":"\q \" ] , \\"}',
        b'{"a":1 "b":2}',
        b'{"a":[}]',
        b"nonsense",
        b"01",
        b'{"a":1} {"b":2}',
        b'"\x01"',
        b'{"a":1,"a":2}',
        b"9" * 5_000,
    ],
)
def test_a_bad_element_costs_only_itself(bad: bytes) -> None:
    body = (
        b'{"params":{"did":"d1","msgid":"m1"},"events":[' + GOOD[0] + b" , " + bad + b"\n,\t" + GOOD[1] + b'],"x":[{}]}'
    )
    batch = read_envelope(body)
    assert texts(batch) == [GOOD[0], bad, GOOD[1]]
    assert facts(batch) == ("d1", "m1", None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'"events"', "not a JSON object"),
        (b"[" * 10_000, "not a JSON object"),
        (b"{}", "no array `events`"),
        (b'{"events":null}', "no array `events`"),
        (b'{"events":{}}', "no array `events`"),
        (b'{"events":"[]"}', "no array `events`"),
        (b'{"events":[1],"events":2}', "no array `events`"),
        (b'{"Events":[]}', "no array `events`"),
        (b'{"events":[1}', "ends with a brace"),
        (b'{"events":[1,,2]}', "element 1 of an array is empty"),
        (b'{"events":[1,]}', "element 1 of an array is empty"),
        (b'{"events":[1]', "does not end"),
        (b'{"events":["1]}', "does not end"),
        (b'{"events":[{"a":1]}', "ends with a brace"),
        (b'{"events":[]}}', "not JSON"),
        (b'{"events":[]} x', "not JSON"),
        (b'{"events":[],}', "not JSON"),
        (b'{"events" []}', "no colon"),
        (b"{events:[]}", "no key"),
        (b'{"events":[] 1}', "not JSON"),
        (b'{"events":[NaN],"ets":NaN}', "NaN is not JSON"),
        (b'{"events":[NaN],"x":01}', "not JSON"),
        (b'{"events":[],"id":"\xff"}', "not UTF-8"),
        (b'{"events":[],"\xff":1}', "not UTF-8"),
        (b'\xff\xfe{\x00"', "not a JSON object"),
    ],
)
def test_what_is_no_batch_is_named(body: bytes, message: str) -> None:
    with pytest.raises(EnvelopeError, match=message):
        read_envelope(body)


READERS = [pytest.param(read_envelope, id="either"), pytest.param(envelope._scan_envelope, id="scanner")]


@pytest.mark.parametrize("read", READERS)
def test_of_a_doubled_key_the_last_counts(read: Callable[[bytes], Batch]) -> None:
    body = rb'{"events":5,"params":{"did":"a"},"events":[1],"params":{"did":"b"},"\u0065vents":[2,3]}'
    batch = read(body)
    assert texts(batch) == [b"2", b"3"]
    assert batch.did == "b"


def test_a_byte_order_mark_is_tolerated_in_both_ways() -> None:
    assert texts(read_envelope(b'\xef\xbb\xbf{"events":[1]}')) == [b"1"]
    assert texts(read_envelope(b'\xef\xbb\xbf{"events":[NaN]}')) == [b"NaN"]


@pytest.mark.parametrize("depth", [150, 900, 990, 5_000, 100_000])
@pytest.mark.parametrize("key", [b"params", b"ets", b"ts", b"x"])
def test_depth_outside_of_events_never_decides_whether_a_body_can_be_read(depth: int, key: bytes) -> None:
    # Whether msgspec can read it depends on how deep the caller's own stack is.
    body = b'{"' + key + b'":' + b"[" * depth + b"]" * depth + b',"events":[1]}'
    assert texts(read_envelope(body)) == [b"1"]
    assert texts(envelope._scan_envelope(body)) == [b"1"]


@pytest.mark.parametrize(
    "params",
    [
        *("null", "5", "[]", '"x"', "{}", '{"did":null,"msgid":7}', '{"did":["d"],"msgid":{}}'),
        r'{"did":"\ud800","msgid":""}',
        json.dumps({"did": "d" * 1_025, "msgid": "m" * 1_000_000}),
    ],
)
@pytest.mark.parametrize("event", ["1", "NaN"])
def test_params_of_any_kind_are_no_reason_to_refuse(params: str, event: str) -> None:
    assert facts(read_envelope(f'{{"params":{params},"events":[{event}]}}'.encode())) == ("", "", None)


@pytest.mark.parametrize(
    ("rest", "sent_at_ms"),
    [
        ('"ets":1586431492513', 1586431492513),
        ('"ets":1586431492', 1586431492000),
        ('"ets":1.586431492513E12', 1586431492513),
        ('"ets":1586431492513000', 1586431492513),
        ('"ets":1586431492513000000', 1586431492513),
        ('"ets":1586431492513,"ts":"2016-01-01T00:00:00Z"', 1586431492513),
        ('"ts":"2020-04-09T11:24:52.513"', 1586431492513),
        ('"ts":"2020-04-09T11:24:52.513Z"', 1586431492513),
        ('"ts":"2020-04-09T16:54:52.513+05:30"', 1586431492513),
        ('"ts":"2020-04-09"', 1586390400000),
        ('"ets":"1586431492513","ts":"2020-04-09T11:24:52.513"', 1586431492513),
        ('"ets":true,"ts":"2020-04-09T11:24:52.513"', 1586431492513),
        ('"ets":1e999,"ts":"2020-04-09T11:24:52.513"', 1586431492513),
        ('"ets":-5,"ts":"yesterday"', None),
        ('"ts":"9999-12-31T23:59:59"', None),
        ('"ts":"0001-01-01T00:00:00+14:00"', None),
        (f'"ets":{"9" * 5_000}', None),
        ('"ets":null,"ts":null', None),
    ],
)
def test_when_it_was_sent(rest: str, sent_at_ms: int | None) -> None:
    assert read_envelope(f'{{"events":[],{rest}}}'.encode()).sent_at_ms == sent_at_ms
    assert read_envelope(f'{{"events":[NaN],{rest}}}'.encode()).sent_at_ms == sent_at_ms


@pytest.mark.parametrize("head", ['{"events":[', ' {"a":[0,0] , "\\u0065vents" : [ ', '\ufeff{"events":[], "events":['])
@pytest.mark.parametrize("element", ["0", "{}", " [0,{}] ", '"],["', "NaN", '{"a":"\\"]"}'])
@pytest.mark.parametrize("tail", ["]}", '],"params":{"msgid":"m"}}'])
def test_elements_are_counted_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch, head: str, element: str, tail: str
) -> None:
    monkeypatch.setattr(envelope, "_MAX_COMMAS_UNREAD", 0)
    for count in range(1, 5):
        body = (head + ",".join([element] * count) + tail).encode()
        assert len(read_envelope(body).events) == count
        assert [holds_more_than(body, limit) for limit in range(1, 5)] == [count > limit for limit in range(1, 5)]


@given(st.lists(json_values, max_size=6), st.dictionaries(st.text(max_size=4), json_values, max_size=3))
def test_the_count_is_that_of_the_reader(events: list[Any], more: dict[str, Any]) -> None:
    body = json.dumps({**more, "events": events}).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "_MAX_COMMAS_UNREAD", 0)
        assert [holds_more_than(body, limit) for limit in range(1, 8)] == [len(events) > n for n in range(1, 8)]


@pytest.mark.parametrize(
    "body",
    [
        "",
        ",",
        "[0,0,0]",
        '{"events":{"a":[0,0,0]}}',
        '{"events":[0,0',
        '{"events":[0,0}',
        '{"events" [0,0,0]}',
        '{"\\x":[0,0,0]}',
        '{"a":{"events":[0,0,0]},"events":[]}',
    ],
)
def test_what_is_no_batch_holds_nothing(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    monkeypatch.setattr(envelope, "_MAX_COMMAS_UNREAD", 0)
    assert not holds_more_than(body.encode(), 2)


def test_events_full_of_commas_are_no_more_than_they_are() -> None:
    body = b'{"events":[' + b",".join([b'{"edata":{"values":[' + b"1," * 100_000 + b"1]}}"] * 39) + b"]}"
    assert 8 * MIB > len(body) > 7 * MIB
    assert not holds_more_than(body, 39)
    assert holds_more_than(body, 38)


HOSTILE = {
    "brackets": b"[" * (2 * MIB - 20),
    "objects": b'{"a":' * (2 * MIB // 5 - 5),
    "numbers": b"[1" * (MIB - 10),
    "quotes": b'"' * (2 * MIB - 21),
    "escaped quotes": b'"' + b'\\"' * (MIB - 10),
    "backslashes": b'"' + b"\\" * (2 * MIB - 21),
    "empty arrays in one": b"NaN," + b"[]" * (MIB - 10),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_scanner_is_linear(name: str) -> None:
    """The worst is some 0.6 us of CPU a byte on a slow core: 1.3 s for 2 MiB. Anything quadratic would take hours."""
    seconds = []
    for size in (len(HOSTILE[name]) // 8, len(HOSTILE[name])):
        body = b'{"events":[' + HOSTILE[name][:size] + b"]}"
        start = time.process_time()
        with contextlib.suppress(EnvelopeError):
            read_envelope(body)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 10
    assert seconds[1] < max(40 * seconds[0], 1.0)
