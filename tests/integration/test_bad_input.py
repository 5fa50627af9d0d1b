"""Bad events, end to end over HTTP: what became of each one, and that nothing else suffered."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.outside import (
    Event,
    Outside,
    Row,
    accepted,
    changed,
    make_body,
    make_event,
    now_ms,
    unique,
    without,
)

CHANNEL = unique("bad-input")
DAY_MS = 24 * 3600 * 1000
MIB = 1024 * 1024
LAST_MOMENT = datetime(2299, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)


def good(**changes: Any) -> Event:
    return make_event("INTERACT", channel=CHANNEL, **changes)


def text(event: Event) -> bytes:
    return json.dumps(event).encode()


def with_extra(value: bytes) -> bytes:
    """Return an event whose ``edata.extra`` is this text."""
    return text(changed(good(), "edata", "extra", value="HERE")).replace(b'"HERE"', value)


@dataclass(frozen=True)
class Expected:
    """What becomes of one event. ``code`` None: it is stored, with these columns."""

    code: str | None
    pointer: str = ""
    mid: bool = True
    """Whether the reject's row names the mid."""
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Bad events, each between two good neighbours. ``headers`` and ``pack`` say how the body goes out."""

    name: str
    events: tuple[bytes, ...]
    expected: tuple[Expected, ...]
    pack: Callable[[bytes], bytes] = lambda body: body
    headers: Mapping[str, str] = field(default_factory=dict)


def one(name: str, event: bytes, code: str | None, pointer: str = "", *, mid: bool = True, **more: Any) -> Case:
    return Case(name, (event,), (Expected(code, pointer, mid, more.pop("columns", {})),), **more)


def nulls() -> Case:
    """Null in each field in turn, and in all at once."""
    whole = good(
        object={"id": "do_1", "type": "Content", "ver": "1", "rollup": {"l1": "do_0"}},
        tags=["t"],
        context={
            "channel": CHANNEL,
            "env": "home",
            "did": "d",
            "sid": "s",
            "pdata": {"id": "p", "pid": "q", "ver": "1"},
            "cdata": [{"type": "t", "id": "i"}],
            "rollup": {"l1": "x"},
        },
    )
    refused = [
        "actor", "actor/id", "actor/type", "ets", "ver", "edata", "object", "object/id", "object/type", "object/ver",
        "object/rollup", "object/rollup/l1", "tags", "context", "context/channel", "context/env", "context/did",
        "context/sid", "context/pdata", "context/pdata/id", "context/pdata/pid", "context/pdata/ver", "context/cdata",
        "edata/type", "edata/id", "edata/subtype", "edata/pageid", "edata/target", "edata/plugin", "edata/extra",
        "edata/duration",
    ]  # fmt: skip
    fields = [("mid", "MISSING_MID"), ("eid", "UNKNOWN_EID"), *((path, "SCHEMA_VIOLATION") for path in refused)]
    events = [changed(whole, *path.split("/")) for path, _ in fields]
    expected = [Expected(code, f"/{path}", mid=path != "mid") for path, code in fields]
    # The specification checks nothing of this one.
    events.append(changed(whole, "context", "rollup"))
    expected.append(Expected(None))
    events.append(dict.fromkeys(whole))
    expected.append(Expected("MISSING_MID", "/mid", mid=False))
    texts = [text(event | ({"mid": unique("null")} if event["mid"] else {})) for event in events]
    return Case("null for every field", tuple(texts), tuple(expected))


def times() -> Case:
    """Epochs of other units and of other centuries are stored, as milliseconds, with the original beside."""
    now = now_ms()
    second = datetime.fromtimestamp(now // 1000, UTC)
    exact = datetime.fromtimestamp(now // 1000, UTC) + timedelta(milliseconds=now % 1000)
    year_2100 = datetime(2100, 1, 1, tzinfo=UTC)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    values: list[tuple[str, datetime, bool]] = [
        (f"{now // 1000}", second, False),
        (f"{now}", exact, False),
        (f"{now}123", exact, False),
        (f"{now}123456", exact, False),
        ("1.586431492513E12", datetime(2020, 4, 9, 11, 24, 52, 513_000, tzinfo=UTC), True),
        ("0", epoch, True),
        ("1", epoch + timedelta(milliseconds=1), True),
        ("12312314", epoch + timedelta(milliseconds=12_312_314), True),
        ("-1", epoch, True),
        (f"{int(year_2100.timestamp() * 1000)}", year_2100, True),
        (f"{now + 3 * DAY_MS}", exact + timedelta(days=3), True),
        (f"{now - 399 * DAY_MS}", exact - timedelta(days=399), False),
        (f"{now - 401 * DAY_MS}", exact - timedelta(days=401), True),
        ("9223372036854775808", datetime(2262, 4, 11, 23, 47, 16, 854_000, tzinfo=UTC), True),
        ("1" + "0" * 30, LAST_MOMENT, True),
        ("1e400", LAST_MOMENT, True),
    ]
    events = [text(good(ets="HERE")).replace(b'"HERE"', value.encode()) for value, _, _ in values]
    expected = [
        Expected(None, columns={"ets": moment, "ets_original": value, "late": late}) for value, moment, late in values
    ]
    return Case("ets in seconds, microseconds, nanoseconds, of 1970 and of 2100", tuple(events), tuple(expected))


def long_mids() -> Case:
    """Mids of 10 kB that differ in their last character, and one of them again."""
    first, second = "m" * 9_999 + unique("a"), "m" * 9_999 + unique("b")
    return Case(
        "mids of 10 kB",
        (text(good(mid=first)), text(good(mid=second))),
        (Expected(None, columns={"mid": first}), Expected(None, columns={"mid": second})),
    )


LARGE = text(changed(good(), "edata", "extra", value={"trace": "x" * 2 * MIB}))

CASES = [
    one("10,000-deep nesting", with_extra(b"[" * 10_000 + b"]" * 10_000), "TOO_DEEP"),
    one("10,000 objects deep", with_extra(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), "TOO_DEEP"),
    one("65 levels", with_extra(b"[" * 63 + b"]" * 63), "TOO_DEEP"),
    one("64 levels", with_extra(b'{"a":' + b"[" * 61 + b"]" * 61 + b"}"), None),
    one("invalid UTF-8", text(good(ver="HERE")).replace(b"HERE", b"3.0\xff\xfe"), "INVALID_UTF8"),
    one("UTF-8 that is cut short", with_extra(b'{"a": "\xe2\x82"}'), "INVALID_UTF8"),
    one("UTF-8 written longer than it is", with_extra(b'{"a": "\xc0\xaf"}'), "INVALID_UTF8"),
    one("a lone surrogate, escaped", with_extra(rb'{"a": "\ud800"}'), "INVALID_UTF8"),
    one("a lone low surrogate in a key", with_extra(rb'{"\udfff": 1}'), "INVALID_UTF8"),
    one("a lone surrogate in the mid", text(good(mid="HERE")).replace(b"HERE", rb"\ud800"), "INVALID_UTF8", mid=False),
    one("a lone surrogate in UTF-8", with_extra(b'{"a": "\xed\xa0\x80"}'), "INVALID_UTF8"),
    one("a pair of surrogates", with_extra(rb'{"a": "\ud83d\ude00"}'), None),
    one("duplicate keys", with_extra(b'{"a": 1, "b": 2, "a": 3}'), "INVALID_JSON", "/edata/extra/a"),
    one("a duplicate mid", text(good())[:-1] + b', "mid": "another"}', "INVALID_JSON", "/mid"),
    one("a duplicate key with escapes", with_extra(rb'{"a": 1, "\u0061": 3}'), "INVALID_JSON", "/edata/extra/a"),
    one("NaN", with_extra(b'{"a": NaN}'), "INVALID_JSON"),
    one("Infinity", with_extra(b'{"a": -Infinity}'), "INVALID_JSON"),
    one("a word that is no JSON", with_extra(b'{"a": undefined}'), "INVALID_JSON"),
    one("a single quote", with_extra(b"{'a': 1}"), "INVALID_JSON"),
    one("a control character", with_extra(b'{"a": "\x01"}'), "INVALID_JSON"),
    one("2^63", with_extra(b'{"a": 9223372036854775808}'), None),
    one("2^64", with_extra(b'{"a": 18446744073709551616}'), None),
    one("-2^63-1", with_extra(b'{"a": -9223372036854775809}'), None),
    one("5,000 digits", with_extra(b'{"a": ' + b"9" * 5_000 + b"}"), None),
    one("1e400", with_extra(b'{"a": 1e400}'), None),
    one(
        "a number beyond 2^63 that has a column",
        text(changed(good(), "edata", "duration", value="HERE")).replace(b'"HERE"', b"9223372036854775808"),
        None,
        columns={"edata_duration": 2.0**63},
    ),
    one("an event of 2 MB", LARGE, "EVENT_TOO_LARGE", pack=gzip.compress),
    one("an unknown eid", text(good(eid="NOBODY")), "UNKNOWN_EID", "/eid"),
    one("an eid in lower case", text(good(eid="interact")), "UNKNOWN_EID", "/eid"),
    one("an eid that leads out of the folder", text(good(eid="../3.0/interact")), "UNKNOWN_EID", "/eid"),
    one("an eid that is a shared definition", text(good(eid="ENVELOPE")), "UNKNOWN_EID", "/eid"),
    one("no eid", text(without(good(), "eid")), "UNKNOWN_EID", "/eid"),
    one("another version", text(good(ver="2.2")), "UNKNOWN_VERSION", "/ver"),
    one("ets as text", text(good(ets="1586431492513")), "SCHEMA_VIOLATION", "/ets"),
    one("an empty mid", text(good(mid="")), "MISSING_MID", "/mid", mid=False),
    one("no mid", text(without(good(), "mid")), "MISSING_MID", "/mid", mid=False),
    one("a number for a mid", text(good(mid=7)), "MISSING_MID", "/mid", mid=False),
    one("no channel", text(without(good(), "context", "channel")), "SCHEMA_VIOLATION", "/context/channel"),
    one("an unknown key of edata", text(changed(good(), "edata", "x", value=1)), "SCHEMA_VIOLATION", "/edata/x"),
    Case(
        "no objects",
        (b'"START"', b"[]", b"7", b"null", b"true", b"{}", b"{]", b"nonsense"),
        (
            *(Expected("NOT_AN_OBJECT", mid=False) for _ in range(5)),
            Expected("MISSING_MID", "/mid", mid=False),
            *(Expected("INVALID_JSON", mid=False) for _ in range(2)),
        ),
    ),
    one("NUL and other odd characters", with_extra(rb'{"a": "\u0000\u2028\ufeff\ufffd"}'), None),
    one("what would be code elsewhere", text(good(mid=unique("'; DROP TABLE events; --\\\n\t\"${x}"))), None),
    nulls(),
    times(),
    long_mids(),
    one("gzip without saying so", text(good()), None, pack=gzip.compress),
    one("gzip only said", text(good()), None, headers={"content_encoding": "gzip"}),
    one(
        "gzip in several members",
        text(good()),
        None,
        pack=lambda body: gzip.compress(body[:100]) + gzip.compress(body[100:]),
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """A case as it went out: its neighbours and its batch."""

    before: Event
    after: Event
    batch_id: str


@pytest.fixture(scope="module")
def sent(outside: Outside, untouched: None) -> dict[str, Sent]:
    """All cases, posted one after the other."""
    cases: dict[str, Sent] = {}
    for case in CASES:
        before, after = good(), good()
        body = case.pack(make_body([before, *case.events, after]))
        cases[case.name] = Sent(before, after, accepted(outside.post(body, **case.headers)))
    return cases


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_event_costs_itself_alone(outside: Outside, sent: dict[str, Sent], case: Case) -> None:
    its = sent[case.name]
    bad = sum(expected.code is not None for expected in case.expected)
    found = outside.settle([its.batch_id])
    assert (found.received, found.rejected, found.duplicate) == (len(case.events) + 2, bad, 0)

    rows = outside.rows("SELECT * FROM events WHERE batch_id = {id:String}", id=its.batch_id)
    stored = {row["event_index"]: row for row in rows}
    rejects = {row["event_index"]: row for row in outside.rejects([its.batch_id])}
    assert json.loads(stored[0]["raw"]) == its.before
    assert json.loads(stored[len(case.events) + 1]["raw"]) == its.after
    for index, (event, expected) in enumerate(zip(case.events, case.expected, strict=True), start=1):
        if expected.code is None:
            check_stored(stored[index], event, expected)
        else:
            check_reject(rejects[index], event, expected)


def check_stored(row: Row, event: bytes, expected: Expected) -> None:
    assert row["raw"].encode() == event  # whole, and as it came
    assert {name: row[name] for name in expected.columns} == expected.columns


def check_reject(row: Row, event: bytes, expected: Expected) -> None:
    assert (row["code"], row["pointer"], row["scope"]) == (expected.code, expected.pointer, "event")
    assert row["message"]
    assert row["raw"] == event
    if expected.mid:
        assert row["mid"]
        assert row["mid"].encode() in event
    else:
        assert row["mid"] == ""


def test_a_batch_of_20_with_one_bad_event(outside: Outside, untouched: None) -> None:
    events = [good() for _ in range(20)]
    events[13] = without(events[13], "edata", "id")
    batch_id = outside.send(events)
    found = outside.settle([batch_id])
    assert (found.received, found.stored, found.rejected, found.duplicate) == (20, 19, 1, 0)
    rows = outside.rows("SELECT event_index, mid FROM events WHERE batch_id = {id:String}", id=batch_id)
    assert {row["event_index"]: row["mid"] for row in rows} == {
        index: event["mid"] for index, event in enumerate(events) if index != 13
    }
    [reject] = outside.rejects([batch_id])
    assert reject["event_index"] == 13
    assert (reject["mid"], reject["eid"], reject["channel"]) == (events[13]["mid"], "INTERACT", CHANNEL)
    assert (reject["code"], reject["pointer"]) == ("SCHEMA_VIOLATION", "/edata/id")
    assert reject["did"] == events[13]["context"]["did"]
    assert json.loads(reject["raw"]) == events[13]


def test_a_long_mid_again_is_a_duplicate(outside: Outside, sent: dict[str, Sent]) -> None:
    [case] = [case for case in CASES if case.name == "mids of 10 kB"]
    first = sent[case.name].batch_id
    outside.settle([first])
    second = outside.send(list(case.events))
    found = outside.settle([second])
    assert (found.stored, found.duplicate) == (0, 2)
    assert [row["mid"].encode() in case.events[n] for n, row in enumerate(outside.duplicates([second]))] == [True] * 2
    assert {row["first_batch_id"] for row in outside.duplicates([second])} == {first}


def test_accounting_adds_up(outside: Outside, sent: dict[str, Sent]) -> None:
    """By the events' own channel; what names none, or cannot be read so far, stands under ''."""
    outside.settle([its.batch_id for its in sent.values()])
    outside.wait_accounted()
    row = outside.row(
        "SELECT sum(received) AS received, sum(stored) AS stored, sum(duplicate) AS duplicate,"
        " sum(rejected) AS rejected, sum(in_flight + unaccounted) AS rest"
        " FROM accounting WHERE channel = {channel:String}",
        channel=CHANNEL,
    )
    assert row["received"] == row["stored"] + row["duplicate"] + row["rejected"]
    assert row["rest"] == 0
    expected = [expected.code for case in CASES for expected in case.expected]
    stored = 2 * len(CASES) + expected.count(None)
    assert row["stored"] >= stored
    assert row["rejected"] > len(CASES) // 2
