"""A trace as JSON."""

from __future__ import annotations

import json

import pytest

from midstream.trace.arrivals import BatchFacts, Evidence, Reject, Sighting, Stored, judge
from midstream.trace.reply import as_dict, in_ascii, iso, to_json


def test_all_fields_of_the_contract_are_there() -> None:
    facts = BatchFacts("http", "msg", "d", "app", "telemetry.raw", 1, 42)
    sightings = [
        Sighting(Evidence.EVENT, "b1", 3, 1_700_000_000_001),
        Sighting(Evidence.DUPLICATE, "b2", 0, 1_700_000_000_999, differs=True),
    ]
    trace = judge(
        "M", sightings, stored=Stored("learning_events", 1_700_000_001_000, 1_700_000_001_050), batches={"b1": facts}
    )
    assert json.loads(to_json(trace)) == {
        "mid": "M",
        "verdict": "stored",
        "complete": True,
        "stored": {
            "table": "learning_events",
            "stored_at": "2023-11-14T22:13:21.000Z",
            "visible_at": "2023-11-14T22:13:21.050Z",
        },
        "reject": None,
        "arrivals": [
            {
                "batch_id": "b1",
                "event_index": 3,
                "msgid": "msg",
                "received_at": "2023-11-14T22:13:20.001Z",
                "did": "d",
                "credential": "app",
                "source": "http",
                "topic": "telemetry.raw",
                "partition": 1,
                "offset": 42,
                "outcome": "stored",
            },
            {
                "batch_id": "b2",
                "event_index": 0,
                "received_at": "2023-11-14T22:13:20.999Z",
                "outcome": "duplicate",
                "differs": True,
                **dict.fromkeys(("msgid", "did", "credential", "source", "topic", "partition", "offset")),
            },
        ],
    }


def test_what_is_not_known_is_left_out_or_null() -> None:
    refused = Sighting(Evidence.REJECT, "b", 0, 0, reject=Reject(1, "POISON", "", "why"))
    reply = as_dict(judge("M", [refused], complete=False, more_arrivals=True))
    assert (reply["stored"], reply["reject"]) == (None, {"code": "POISON", "pointer": "", "message": "why"})
    assert (reply["complete"], reply["more_arrivals"], reply["arrivals"][0]["code"]) == (False, True, "POISON")
    assert "event" not in reply
    assert "visible_at" not in as_dict(judge("M", [], stored=Stored("t", 1)))["stored"]


def test_the_event_comes_back_as_it_was_sent() -> None:
    text = '{"mid" : "M", "big": 1e400, "same": 1.0, "é": "\\u00e9"}'
    assert text.encode() in to_json(judge("M", [], stored=Stored("t", 1), event=text))


@pytest.mark.parametrize("mid", ["", 'q"', "\ud800", "\x00\x1b", "ünï😀", "\u2028", "x" * 10_000])
def test_any_mid_comes_back(mid: str) -> None:
    assert json.loads(to_json(judge(mid, [])))["mid"] == mid


@pytest.mark.parametrize("text", ['{"a": "é😀\x7f\u202e"}', '"plain"'])
def test_json_for_a_terminal_is_ascii_and_the_same(text: str) -> None:
    written = in_ascii(text)
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written) == json.loads(text)


@pytest.mark.parametrize(
    ("epoch_ms", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (1_700_000_000_007, "2023-11-14T22:13:20.007Z")],
)
def test_times_are_iso_in_utc(epoch_ms: int, text: str) -> None:
    assert iso(epoch_ms) == text
