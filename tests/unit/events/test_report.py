"""What would become of each event of a body."""

import orjson
import pytest

from midstream.envelope import EnvelopeError
from midstream.events.judge import Judge
from midstream.events.report import judge_body
from midstream.events.schemas import load_schemas
from tests.unit.events.examples import full_events

JUDGE = Judge(load_schemas(), 512 * 1024, 64)


def test_each_event_has_its_verdict_in_order() -> None:
    events = full_events()
    good = events["INTERACT"]
    bad = {**events["INTERACT"], "edata": {"type": "TOUCH"}}
    body = orjson.dumps({"events": [bad, good, 5, {**events["START"], "mid": "s"}, good]}).replace(b",5,", b",NaN,")
    valid = {"valid": True, "code": None, "pointer": None, "message": None, "duplicate_of": None}
    assert judge_body(JUDGE, body) == [
        {
            "index": 0,
            "mid": good["mid"],
            "eid": "INTERACT",
            "valid": False,
            "code": "SCHEMA_VIOLATION",
            "pointer": "/edata/id",
            "message": "'id' is a required property",
            "duplicate_of": None,
        },
        {"index": 1, "mid": good["mid"], "eid": "INTERACT", **valid},
        {
            "index": 2,
            "mid": "",
            "eid": "",
            "valid": False,
            "code": "INVALID_JSON",
            "pointer": "",
            "message": "NaN is not JSON",
            "duplicate_of": None,
        },
        {"index": 3, "mid": "s", "eid": "START", **valid},
        {"index": 4, "mid": good["mid"], "eid": "INTERACT", **valid, "duplicate_of": 1},
    ]


def test_a_body_that_is_no_batch_is_an_error() -> None:
    with pytest.raises(EnvelopeError):
        judge_body(JUDGE, b"[]")
    assert judge_body(JUDGE, b'{"events":[]}') == []
