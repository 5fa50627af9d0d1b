from typing import Any

import orjson
import pytest

from midstream.events.judge import Accepted, Judge
from midstream.events.schemas import load_schemas
from midstream.events.typed import from_parsed
from processors.validate.rows import LateWindow, Rows
from processors.validate.split import hash_mid
from tests.unit.validate.test_round import RECEIVED_AT_MS, event, receipt

DAY_MS = 24 * 3600 * 1000


def row(value: dict[str, Any], raw: bytes | None = None, **facts: Any) -> dict[str, Any]:
    raw = raw or orjson.dumps(value)
    rows = Rows(LateWindow(400, 1))
    rows.add(receipt(**facts), [3], [from_parsed(value, raw)], [raw])
    ((made),) = rows.to_arrow().to_pylist()
    for name in ("ets", "received_at", "sent_at"):
        made[name] = made[name] and round(made[name].timestamp() * 1000)
    return made


def test_what_people_filter_by_has_a_column_of_its_own() -> None:
    made = row(
        event(
            "a",
            eid="INTERACT",
            edata={"type": "TOUCH", "id": "next", "pageid": "home", "subtype": "s", "duration": 2},
            context={
                "channel": "c",
                "env": "e",
                "sid": "s1",
                "did": "d1",
                "pdata": {"id": "app", "pid": "p", "ver": "1"},
                "cdata": [{"type": "t", "id": "i"}],
                "rollup": {"l1": "x"},
            },
            object={"id": "do_1", "type": "Content", "ver": "2", "rollup": {"l1": "do_0"}},
            tags=["x", "y"],
        ),
        sent_at_ms=RECEIVED_AT_MS - 250,
    )
    expected = {
        "mid": "a",
        "eid": "INTERACT",
        "channel": "c",
        "env": "e",
        "sid": "s1",
        "did": "d1",
        "actor_id": "u",
        "actor_type": "User",
        "pdata_id": "app",
        "pdata_pid": "p",
        "pdata_ver": "1",
        "object_id": "do_1",
        "object_type": "Content",
        "object_ver": "2",
        "object_rollup": '{"l1":"do_0"}',
        "context_rollup": '{"l1":"x"}',
        "cdata": '[{"type":"t","id":"i"}]',
        "tags": ["x", "y"],
        "edata_type": "TOUCH",
        "edata_id": "next",
        "edata_pageid": "home",
        "edata_subtype": "s",
        "edata_duration": 2.0,
        "event_index": 3,
        "mid_hash": hash_mid("a"),
        "sent_at": RECEIVED_AT_MS - 250,
        "skew_ms": 250,
        "late": False,
    }
    assert {name: made[name] for name in expected} == expected
    assert orjson.loads(made["edata"])["subtype"] == "s"


def test_the_device_is_the_events_own_else_the_batchs() -> None:
    assert row(event("a", context={"channel": "c", "env": "", "did": "own"}), did="batch")["did"] == "own"
    assert row(event("a", context={"channel": "c", "env": "", "did": ""}), did="batch")["did"] == "batch"
    assert row(event("a"), did="batch")["did"] == "batch"


def test_edata_of_any_shape_is_kept_as_text() -> None:
    made = row(event("a", eid="HEARTBEAT", edata={"type": 7, "id": None, "pageid": ["x"], "duration": "long"}))
    assert (made["edata_type"], made["edata_id"], made["edata_pageid"], made["edata_duration"]) == ("", "", "", None)
    assert orjson.loads(made["edata"]) == {"type": 7, "id": None, "pageid": ["x"], "duration": "long"}


@pytest.mark.parametrize(
    ("age_ms", "late"),
    [
        (0, False),
        (400 * DAY_MS, False),
        (400 * DAY_MS + 1, True),
        (-DAY_MS, False),
        (-DAY_MS - 1, True),
    ],
)
def test_late_is_outside_the_window_around_receipt(age_ms: int, late: bool) -> None:
    assert row(event("a", ets=RECEIVED_AT_MS - age_ms))["late"] is late


@pytest.mark.parametrize(
    ("ets", "stored_ms", "late"),
    [
        (1_790_000_000, 1_790_000_000_000, False),  # seconds
        (1_790_000_000_000_000, 1_790_000_000_000, False),  # microseconds
        (1_790_000_000_000_000_000, 1_790_000_000_000, False),  # nanoseconds
        (12_312_314, 12_312_314, True),  # the year 1970
        (4_102_444_800_000, 4_102_444_800_000, True),  # the year 2100
        (1.79e12, 1_790_000_000_000, False),
    ],
)
def test_event_times_are_normalised_and_the_original_kept(ets: float, stored_ms: int, late: bool) -> None:
    made = row(event("a", ets=ets))
    assert (made["ets"], made["late"]) == (stored_ms, late)
    assert float(made["ets_original"]) == ets


def test_a_float_keeps_the_form_it_was_sent_in() -> None:
    value = event("a", ets=1.586431492513e12)
    raw = orjson.dumps(value).replace(b"1586431492513.0", b"1.586431492513E12")
    assert b"E12" in raw
    assert row(value, raw)["ets_original"] == "1.586431492513E12"


@pytest.mark.parametrize("number", ["1" + "0" * 30, "-" + "9" * 30, "9223372036854775808", "1e999", "-1e999", "1e-999"])
@pytest.mark.parametrize("place", ["ets", "duration", "deep"])
def test_no_number_stops_anything(number: str, place: str) -> None:
    raw = orjson.dumps(event("a", eid="HEARTBEAT", edata={"duration": 777, "deep": [{"x": 888}]}, ets=999))
    raw = raw.replace({"ets": b"999", "duration": b"777", "deep": b"888"}[place], number.encode())
    judge = Judge(load_schemas(None), 1 << 20, 64)
    verdict = judge.judge(raw)
    assert isinstance(verdict, Accepted)
    made = row(verdict.event, raw)
    assert 0 <= made["ets"] < 10_413_792_000_000  # the year 2300
    assert orjson.loads(made["edata"])["deep"]
