"""Objects that are pushed after their events: the events get their copies by themselves, within a time that is set."""

from __future__ import annotations

import time

from tests.integration.jobs import REPAIR_MS, all_copies, copies, push, push_and_wait
from tests.integration.outside import Outside, Row, make_event, unique
from tests.support.waiting import wait_until

SLACK_S = 6.0
"""For the way of the push to ClickHouse, and of a repair of other objects that is under way when it comes."""

NOTHING: Row = {}


def test_late_objects_get_into_the_events_that_came_before(outside: Outside) -> None:
    user, device, course, content, organisation = (unique(kind) for kind in ("u", "d", "do", "do", "org"))
    context = {"channel": "c", "env": "home", "did": device, "rollup": {"l1": organisation}}
    of_user = make_event(actor=user, object={"id": content, "type": "Content", "rollup": {"l1": course}})
    of_user |= {"context": context}
    of_nobody = make_event(actor=unique("u"), object={}) | {"context": context}
    of_log = make_event("LOG", actor=user, did=unique("d"), object={})
    mids = [event["mid"] for event in (of_user, of_nobody, of_log)]
    outside.settle([outside.send([of_user, of_nobody, of_log])])
    names = ("user", "device", "content", "collection", "organisation")
    assert copies(outside, mids[0])["flags"] == dict.fromkeys(names, "missing")

    declared = {"state": "Goa", "district": "North / Süd"}
    attributes: dict[str, dict[str, object]] = {
        "user": {"state": "Kerala", "district": "Kochi"},
        "device": {"userDeclaredLocation": declared},
        "content": {"name": "An exercise"},
        "collection": {"name": "A course"},
        "organisation": {"name": "A school"},
    }
    push(outside, "user", user, attributes["user"])
    push(outside, "device", device, attributes["device"])
    push(outside, "content", content, attributes["content"])
    push(outside, "content", course, attributes["collection"])
    push(outside, "organisation", organisation, attributes["organisation"])
    pushed = time.monotonic()

    first = attributes | {
        "batch": {},
        "location": attributes["user"] | {"from": "user-profile"},
        "flags": dict.fromkeys(names, "found"),
    }
    second = dict.fromkeys(first, NOTHING) | {
        "device": attributes["device"],
        "organisation": attributes["organisation"],
        "location": declared | {"from": "user-declared"},
        "flags": {"user": "missing", "device": "found", "organisation": "found"},
    }
    third = dict.fromkeys(first, NOTHING) | {
        "user": attributes["user"],
        "location": first["location"],
        "flags": {"user": "found", "device": "missing"},
    }
    expected = dict(zip(mids, (first, second, third), strict=True))

    def so_far() -> bool:
        seen = all_copies(outside, *mids)
        for mid, row in seen.items():  # never half of one
            assert bool(row["user"]) == (row["flags"]["user"] == "found")
            assert bool(row["user"]) == (row["location"].get("from") == "user-profile")
            assert bool(row["organisation"]) == (row["flags"].get("organisation") == "found"), mid
        return seen == expected

    wait_until("all is repaired", so_far, REPAIR_MS / 1000 + 4 * SLACK_S)
    # Each of the types takes a step of its own, during which others wait.
    assert time.monotonic() - pushed < REPAIR_MS / 1000 + 2 * SLACK_S


def test_one_late_object_is_there_within_the_time_that_is_set(outside: Outside) -> None:
    user = unique("u")
    event = make_event(actor=user)
    outside.settle([outside.send([event])])
    push(outside, "user", user, {"state": "Goa"})
    pushed = time.monotonic()
    wait_until("it is repaired", lambda: copies(outside, event["mid"])["user"], 30)
    assert time.monotonic() - pushed < REPAIR_MS / 1000 + SLACK_S
    found = copies(outside, event["mid"])
    assert found["location"] == {"state": "Goa", "district": "", "from": "user-profile"}
    assert found["flags"]["user"] == "found"


def test_a_copy_that_was_found_is_not_replaced(outside: Outside) -> None:
    """Only a sync does that: what is repaired is what was missing."""
    user, late = unique("u"), unique("u")
    push_and_wait(outside, "user", user, {"grade": 6})
    events = [make_event(actor=user), make_event(actor=late)]
    outside.settle([outside.send(events)])
    push(outside, "user", user, {"grade": 7})
    push(outside, "user", late, {"grade": 8})
    wait_until("the other is repaired", lambda: copies(outside, events[1]["mid"])["user"], 30)
    assert copies(outside, events[0]["mid"])["user"] == {"grade": 6}
