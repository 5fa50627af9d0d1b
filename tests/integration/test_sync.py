"""Data sync of what was pushed over a whole pipeline: it gets into events that are stored."""

from __future__ import annotations

from tests.integration.jobs import SYNC, begin_delete, copies, done, push, push_and_wait, synced
from tests.integration.outside import Outside, make_event, unique


def test_events_get_what_was_pushed_after_them(outside: Outside) -> None:
    user = unique("u")
    push_and_wait(outside, "user", user, {"state": "Goa"})
    event = make_event(actor=user)
    outside.settle([outside.send([event])])
    assert copies(outside, event["mid"])["user"] == {"state": "Goa"}
    push(outside, "user", user, {"state": "Kerala"})
    assert synced(outside, "user", user)["changed"] == {"events": 1}
    found = copies(outside, event["mid"])
    assert found["user"] == {"state": "Kerala"}
    assert (found["location"]["state"], found["location"]["from"]) == ("Kerala", "user-profile")
    assert found["flags"]["user"] == "found"
    assert synced(outside, "user", user)["changed"] == {"events": 0}


def test_the_reply_waits_and_tells_of_each_id(outside: Outside) -> None:
    user = unique("u")
    push(outside, "user", user, {})
    ids = [user, unique("nobody")]
    request = {"objectType": "user", "objectIds": ids, "operationType": "sync"}
    reply = outside.operate("POST", SYNC, {"request": request}).json()
    assert reply["result"]["esSyncResponse"] == {ids[0]: True, ids[1]: False}
    done(outside, reply["result"]["node_id"])


def test_a_deleted_object_leaves_its_events(outside: Outside) -> None:
    user = unique("u")
    path = f"/v1/dimensions/user/{user}"
    push_and_wait(outside, "user", user, {"state": "Goa"})
    event = make_event(actor=user)
    outside.settle([outside.send([event])])
    assert copies(outside, event["mid"])["user"] == {"state": "Goa"}
    job = done(outside, begin_delete(outside, path, erase=False))
    assert job["changed"] == {"dimensions": 1, "events": 1}
    assert outside.operate("GET", path).status_code == 404
    found = copies(outside, event["mid"])
    assert (found["user"], found["location"], found["flags"]["user"]) == ({}, {}, "missing")
    outside.wait_accounted()
