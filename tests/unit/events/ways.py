"""The quick way of judging an event and the slow one, and texts to compare them with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from midstream.events.judge import Accepted, Judge
from midstream.events.quick import QuickReader
from midstream.events.schemas import Schemas, load_schemas
from midstream.events.typed import ValidEvent, from_parsed
from midstream.receipt import Receipt
from processors.validate.rows import LateWindow, Rows
from tests.unit.events.test_differential import EVENTS, mutated

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
