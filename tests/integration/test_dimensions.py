"""Dimensions are pushed, and events carry them from then on."""

from __future__ import annotations

import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import chain
from urllib.parse import quote

import httpx
import pytest

from midstream import topics
from midstream.dimensions import encode_dimension
from midstream.erased import SUBKEY, ErasedKey, erased_row
from midstream.registry.keyfile import derive_key
from midstream.settings import Settings
from tests.integration.outside import Outside, Record, Row, make_event, now_ms, produce, unique
from tests.support.ip_locations import SOME_ADDRESS
from tests.support.waiting import wait_until

FRESH_S = 2.0
"""How long a change may take to be seen by the next events."""


class People:
    """A user, a device and a content that events speak of."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self.user, self.device, self.content = unique("u/1 ü"), unique("d"), unique("do")

    def send(self, **changes: object) -> Row:
        """Send an event of them; return its row once it is stored."""
        event = make_event(actor=self.user, did=self.device, object={"id": self.content, "type": "Content"})
        self._outside.send([event | changes])
        [row] = wait_until("it is stored", lambda: list(self._outside.events([event["mid"]]).values()))
        return row


@pytest.fixture
def people(outside: Outside) -> People:
    return People(outside)


def put(
    outside: Outside, type_: str, id_: str, attributes: Row, version: int | None = None, *, wait: bool = True
) -> None:
    """Put a row, and wait until it is in ClickHouse."""
    path = f"/v1/dimensions/{type_}/{quote(id_, safe='')}" + ("" if version is None else f"?version={version}")
    response = outside.operate("PUT", path, attributes)
    assert response.status_code == 200, response.text
    said = response.json()
    assert (said["type"], said["id"]) == (type_, id_)
    if wait:
        wait_until(
            "it is in ClickHouse", lambda: (known(outside, type_, id_) or {"version": -1})["version"] >= said["version"]
        )


def known(outside: Outside, type_: str, id_: str) -> Row | None:
    sql = "SELECT * FROM dimensions WHERE type = {type:String} AND id = {id:String}"
    rows = outside.rows(sql, type=type_, id=id_)
    return rows[0] if rows else None


def test_an_event_carries_user_device_content_and_location(outside: Outside, people: People) -> None:
    user = {"state": "Karnataka", "district": "Mysuru", "board": "State", "name": "Änne 😀"}
    device = {"make": "Nokia", "ipLocation": {"state": "Kerala", "district": "Kochi"}}
    content = {"subject": ["Maths"], "gradeLevel": "7"}
    put(outside, "user", people.user, user)
    put(outside, "device", people.device, device)
    put(outside, "content", people.content, content)
    row = people.send()
    assert (json.loads(row["user"]), json.loads(row["device"]), json.loads(row["content"])) == (user, device, content)
    assert json.loads(row["location"]) == {"state": "Karnataka", "district": "Mysuru", "from": "user-profile"}
    assert json.loads(row["flags"]) == {"user": "found", "device": "found", "content": "found"}
    stored = known(outside, "user", people.user)
    assert stored is not None
    assert json.loads(stored["attributes"]) == user
    assert stored["deleted"] is False
    response = outside.operate("GET", f"/v1/dimensions/user/{quote(people.user, safe='')}")
    assert response.json()["attributes"] == user
    assert response.json()["version"] == stored["version"]


@pytest.mark.parametrize(
    ("attributes", "source"),
    [
        (
            {"userDeclaredLocation": {"state": "Goa", "district": "South"}, "ipLocation": {"state": "x"}},
            "user-declared",
        ),
        ({"ipLocation": {"state": "Goa", "district": "South"}}, "ip-resolved"),
    ],
)
def test_the_location_is_the_devices_where_the_user_has_none(
    outside: Outside, people: People, attributes: Row, source: str
) -> None:
    put(outside, "user", people.user, {"board": "State"})
    put(outside, "device", people.device, attributes)
    assert json.loads(people.send()["location"]) == {"state": "Goa", "district": "South", "from": source}


def test_the_location_is_that_of_a_device_that_registered(outside: Outside, people: People) -> None:
    """From its address first; then its user says where it is. What the address was is kept nowhere."""
    path = f"/v3/device/register/{quote(people.device, safe='')}"
    declared = {"state": "Goa", "district": "North Goa"}
    for said, expected in (
        ({"ip_addr": SOME_ADDRESS, "fcmToken": "t-1"}, {"state": "Kerala", "district": "Kochi", "from": "ip-resolved"}),
        ({"userDeclaredLocation": declared}, declared | {"from": "user-declared"}),
    ):
        response = outside.post(json.dumps({"request": said}).encode(), path=path)
        assert response.status_code == 200, response.text
        assert response.json()["result"] == {"message": "Device registered successfully", "actions": []}
        time.sleep(FRESH_S)
        row = people.send()
        assert json.loads(row["location"]) == expected
    assert json.loads(row["flags"])["device"] == "found"
    assert json.loads(row["device"]) == {
        "fcmToken": "t-1",
        "ipLocation": {"state": "Kerala", "district": "Kochi"},
        "userDeclaredLocation": declared,
    }
    response = outside.http.get(
        path.replace("/register/", "/profile/"), headers={"authorization": f"Bearer {outside.token}"}
    )
    assert response.json()["result"] == {
        "userDeclaredLocation": declared,
        "ipLocation": {"state": "Kerala", "district": "Kochi"},
    }


def test_registrations_at_once_in_all_processes_lose_nothing(outside: Outside) -> None:
    """Each asks a process of the api on a connection of its own; what one did not know of another is put back."""
    dids = [unique("d") for _ in range(10)]
    said: list[Row] = [
        {"producer": "p"},
        {"dspec": {"os": "x"}},
        {"uaspec": {"agent": "y"}},
        {"fcmToken": "t"},
        {"first_access": 5},
        {"userDeclaredLocation": {"state": "Goa", "district": "North Goa"}},
    ]

    def register(did: str, one: Row) -> int:
        headers = {"authorization": f"Bearer {outside.token}"}
        url = f"{outside.pipeline.base_url}/v3/device/register/{did}"
        return httpx.post(url, json={"request": one}, headers=headers, timeout=30, trust_env=False).status_code

    with ThreadPoolExecutor(len(said)) as threads:
        for did in dids:
            assert set(threads.map(partial(register, did), said)) == {200}
    expected = {name: value for one in said for name, value in one.items()}
    sql = "SELECT id, attributes FROM dimensions WHERE type = 'device' AND id IN {ids:Array(String)}"
    stored: dict[str, Row] = {}

    def has_all() -> bool:
        stored.update({row["id"]: json.loads(row["attributes"]) for row in outside.rows(sql, ids=dids)})
        return stored == dict.fromkeys(dids, expected)

    with suppress(AssertionError):
        wait_until("ClickHouse has all of it", has_all, 60)
    assert stored == dict.fromkeys(dids, expected)  # says what it has not


def test_a_miss_passes_and_is_flagged(people: People) -> None:
    row = people.send()
    assert json.loads(row["flags"]) == {"user": "missing", "device": "missing", "content": "missing"}
    assert (row["user"], row["device"], row["content"], row["location"]) == ("", "", "", "")


def test_what_an_event_does_not_name_is_not_looked_for(people: People) -> None:
    row = people.send(actor={"id": "scheduler", "type": "System"}, object={})
    assert json.loads(row["flags"]) == {"device": "missing"}


def test_a_change_is_seen_by_the_next_events(outside: Outside, people: People) -> None:
    put(outside, "user", people.user, {"grade": 6})
    assert json.loads(people.send()["user"]) == {"grade": 6}
    put(outside, "user", people.user, {"grade": 7}, wait=False)
    time.sleep(FRESH_S)
    assert json.loads(people.send()["user"]) == {"grade": 7}


def test_an_object_that_was_missing_is_seen_by_the_next_events(outside: Outside, people: People) -> None:
    assert json.loads(people.send()["flags"])["user"] == "missing"
    put(outside, "user", people.user, {"grade": 7}, wait=False)
    time.sleep(FRESH_S)
    assert json.loads(people.send()["user"]) == {"grade": 7}


@pytest.mark.parametrize("before", [None, {"grade": 6}])
def test_events_right_behind_a_row_do_not_fix_what_was_before(outside: Outside, before: Row | None) -> None:
    """The row is on its way to ClickHouse while a worker asks there, for the first time: what it found, or missed, may
    be believed for a moment only. Several, so that both partitions of the topic have some."""
    everybody = [People(outside) for _ in range(5)]
    for people in everybody:
        if before is not None:
            put(outside, "user", people.user, before)
    for people in everybody:
        put(outside, "user", people.user, {"grade": 7}, wait=False)
        people.send()
    time.sleep(FRESH_S)
    assert [json.loads(people.send()["user"] or "null") for people in everybody] == [{"grade": 7}] * 5


def test_a_lower_version_that_comes_later_changes_nothing(outside: Outside, people: People) -> None:
    put(outside, "user", people.user, {"grade": 7}, version=20)
    assert json.loads(people.send()["user"]) == {"grade": 7}
    put(outside, "user", people.user, {"grade": 6}, version=19, wait=False)
    time.sleep(FRESH_S)
    assert json.loads(people.send()["user"]) == {"grade": 7}
    row = known(outside, "user", people.user)
    assert row is not None
    assert (json.loads(row["attributes"]), row["version"]) == ({"grade": 7}, 20)


@pytest.mark.parametrize("packed", [False, True])
def test_many_at_once(outside: Outside, packed: bool) -> None:
    """Three thousand users in one request; a bad line costs itself alone."""
    prefix = unique("bulk")
    lines = [json.dumps({"id": f"{prefix}-{n}", "attributes": {"n": n}}) for n in range(3_000)]
    lines[1_500] = '{"id": "x", "attributes": [1]}'
    lines[1_501] = "nonsense"
    body = "\n".join(lines).encode()
    response = outside.operate("POST", "/v1/dimensions/user", gzip.compress(body) if packed else body)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert (reply["accepted"], reply["refused"]) == (2_998, 2)
    assert [(error["line"], error["code"]) for error in reply["errors"]] == [
        (1_501, "NOT_AN_OBJECT"),
        (1_502, "INVALID_JSON"),
    ]
    sql = "SELECT count() FROM dimensions WHERE type = 'user' AND startsWith(id, {prefix:String})"
    wait_until("all are in ClickHouse", lambda: outside.value(sql, prefix=prefix) == 2_998)
    events = [make_event(actor=f"{prefix}-{n}") for n in range(0, 3_000, 150)]
    batch_id = outside.send(events)
    outside.settle([batch_id])
    rows = outside.events([event["mid"] for event in events])
    found = [rows[event["mid"]]["user"] for event in events]
    assert [json.loads(user)["n"] if user else None for user in found] == [
        None if n == 1_500 else n for n in range(0, 3_000, 150)
    ]


def test_a_file_is_loaded_by_the_command(
    outside: Outside, people: People, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("dimensions") / "users.csv"
    file.write_text(f"id,state,district\n{people.user},Goa,North\n")
    outside.cli("dimensions", "load", "user", str(file), MIDSTREAM_KAFKA=outside.pipeline.kafka_servers)
    wait_until("it is in ClickHouse", lambda: known(outside, "user", people.user))
    assert json.loads(people.send()["user"]) == {"state": "Goa", "district": "North"}


def test_an_id_is_data_in_the_look_up_too(outside: Outside, people: People) -> None:
    people.user = unique("x' OR 1=1 --\\ \n\t")
    assert json.loads(people.send()["flags"])["user"] == "missing"
    body = json.dumps({"id": people.user, "attributes": {"n": 1}}).encode()
    assert outside.operate("POST", "/v1/dimensions/user", body).json()["accepted"] == 1
    time.sleep(FRESH_S)
    assert json.loads(people.send()["user"]) == {"n": 1}


def test_every_event_posted_two_seconds_after_a_push_carries_it(outside: Outside) -> None:
    """However the workers stood to the object: its row held, known to be missing, or never heard of. Events go on all
    the while, so that some are denormalised at each moment between."""
    everybody = {kind: [People(outside) for _ in range(4)] for kind in ("held", "missing", "unknown")}
    for people in everybody["held"]:
        put(outside, "user", people.user, {"grade": 6})
    for people in everybody["held"] + everybody["missing"]:
        people.send()
    pushed: dict[str, float] = {}
    posted: list[tuple[str, str, float]] = []
    until = time.monotonic() + 2 * FRESH_S
    while time.monotonic() < until:
        for people in chain(*everybody.values()):
            if people.user not in pushed:
                put(outside, "user", people.user, {"grade": 7}, wait=False)
                pushed[people.user] = time.monotonic()
            event = make_event(actor=people.user, did=people.device)
            posted.append((event["mid"], people.user, time.monotonic()))
            outside.send([event])
    rows = wait_until("they are stored", lambda: every(outside.events([mid for mid, _, _ in posted]), len(posted)))
    late = [at - pushed[user] for mid, user, at in posted if json.loads(rows[mid]["user"] or "{}") != {"grade": 7}]
    assert max(late, default=0) < FRESH_S
    assert [at for _, user, at in posted if at - pushed[user] > FRESH_S]  # there were some


def every(rows: dict[str, Row], number: int) -> dict[str, Row] | None:
    return rows if len(rows) == number else None


def test_collection_organisation_and_batch_stand_beside_the_event(outside: Outside, people: People) -> None:
    course, organisation, batch = unique("do"), unique("org"), unique("batch")
    put(outside, "content", course, {"name": "A course"})
    put(outside, "organisation", organisation, {"name": "A school"})
    row = people.send(
        object={"id": people.content, "type": "Content", "rollup": {"l1": course}},
        context={
            "channel": "c", "env": "home", "did": people.device, "rollup": {"l1": organisation},
            "cdata": [{"type": "Session", "id": "s"}, {"type": "CourseBatch", "id": batch}],
        },
    )  # fmt: skip
    assert json.loads(row["collection"]) == {"name": "A course"}
    assert json.loads(row["organisation"]) == {"name": "A school"}
    assert row["batch"] == ""
    assert (row["collection_id"], row["organisation_id"], row["course_batch_id"]) == (course, organisation, batch)
    flags = json.loads(row["flags"])
    assert flags == dict.fromkeys(("user", "device", "content"), "missing") | {
        "collection": "found",
        "organisation": "found",
        "batch": "missing",
    }


def test_the_row_says_when_it_was_stored(outside: Outside, people: People) -> None:
    before = outside.value("SELECT now64(3, 'UTC')")
    put(outside, "user", people.user, {"grade": 6})
    row = known(outside, "user", people.user)
    assert row is not None
    assert row["stored_at"] >= before - timedelta(seconds=1)


def test_what_an_erased_user_sends_later_is_stored_under_a_pseudonym(outside: Outside, people: People) -> None:
    put(outside, "user", people.user, {"name": "Gone"})
    home = Settings.model_validate({"home": outside.pipeline.home.root})
    digest = ErasedKey(derive_key(home, SUBKEY)).digest("user", people.user)
    row = erased_row(digest, now_ms())
    produce(outside.pipeline, topics.DIMENSIONS.name, [Record(key=row.key, value=encode_dimension(row))])
    time.sleep(FRESH_S)
    row = people.send(tags=[people.user])
    assert row["actor_id"] == f"erased-{digest}"
    assert (row["user"], json.loads(row["flags"])["user"]) == ("", "missing")
    assert people.user not in str(row)
    assert json.loads(row["raw"])["actor"]["id"] == f"erased-{digest}"
    for method in ("GET", "PUT"):
        assert outside.operate(method, f"/v1/dimensions/erased/{digest}", {}).status_code == 404
    assert known(outside, "erased", digest) is None
