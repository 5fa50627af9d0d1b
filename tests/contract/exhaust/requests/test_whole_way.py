"""Requests from their submission to their download, and who is told of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from midstream.clickhouse.client import ClickHouse
from midstream.exhaust.dataset import D001
from midstream.exhaust.variant import Variant
from midstream.registry.exhaust.licences import Licences
from midstream.registry.exhaust.requests import MAX_OPEN, Ask, Requests
from midstream.registry.exhaust.revisions import Revisions
from midstream.settings import Settings
from serve.exhaust.days.keeper import tidy
from tests.contract.exhaust.archive import Archive
from tests.contract.exhaust.conftest import HASH, Api, Partner, Store, day_before, serving
from tests.contract.exhaust.requests.asking import (
    BASE,
    DAY,
    FIRST,
    QUICK,
    ask,
    assert_refused,
    ended,
    get,
    kept_files,
    licence_ids,
    read,
    submit,
    unused_port,
)
from tests.support.waiting import wait_until


def test_the_whole_way(partner: Partner, filled: Store) -> None:
    told = submit(partner)
    assert told["status"] in ("SUBMITTED", "PROCESSING")
    assert (told["datasetId"], told["resourceId"]) == ("D001", HASH)
    assert (told["fromDate"], told["toDate"], told["format"]) == (str(FIRST), str(DAY), "jsonl")
    assert (told["eid"], told["channel"]) == ([], [])
    for unknown in ("completedAt", "expiresAt", "events", "bytes", "downloadUrl", "errmsg"):
        assert told[unknown] is None
    assert told["progress"]["days"] == 3
    found = ended(partner, told["requestId"])
    assert found["progress"] == {"days": 3, "daysBuilt": 3, "events": 900, "percent": 100}
    reply = get(found["downloadUrl"])
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/zip")
    assert len(reply.content) == found["bytes"] == int(reply.headers["content-length"])
    assert sum(len(Archive(reply.content).lines(day_before(number))) for number in (1, 2, 3)) == found["events"] == 900
    submitted, completed, expires = (
        datetime.fromisoformat(found[name]) for name in ("submittedAt", "completedAt", "expiresAt")
    )
    assert submitted <= completed
    assert abs(expires - completed - timedelta(hours=72)) < timedelta(seconds=1)


@pytest.mark.parametrize(
    ("more", "query"),
    [
        ({}, ""),
        ({"format": "csv"}, "?format=csv"),
        ({"format": "parquet", "eid": ["INTERACT", "LOG"]}, "?format=parquet&eid=INTERACT&eid=LOG"),
        ({"channel": ["nobody"]}, "?channel=nobody"),
    ],
)
def test_the_same_bytes_as_the_direct_download(
    partner: Partner, filled: Store, more: dict[str, Any], query: str
) -> None:
    found = ended(partner, submit(partner, **more)["requestId"])
    by_link, direct = get(found["downloadUrl"]), partner.post(FIRST, DAY, query=query)
    assert by_link.content == direct.content
    for name in ("etag", "content-disposition", "content-length", "accept-ranges"):
        assert by_link.headers[name] == direct.headers[name]


def test_parts_head_and_what_a_client_holds(partner: Partner, filled: Store) -> None:
    url = ended(partner, submit(partner)["requestId"])["downloadUrl"]
    whole = get(url)
    part = get(url, headers={"range": "bytes=100-299", "if-range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, whole.content[100:300])
    assert get(url, headers={"range": "bytes=999999999-"}).status_code == 416
    assert get(url, headers={"if-none-match": whole.headers["etag"]}).status_code == 304
    head = httpx.head(url, timeout=20, trust_env=False)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.headers["etag"] == whole.headers["etag"]


def test_dates_that_are_not_given_are_yesterday(partner: Partner, filled: Store) -> None:
    said = {"licensekey": partner.key, "datasetId": "D001", "resourceId": HASH.upper(), "toDate": None}
    told = partner.http.post(f"{BASE}/submit", json=partner.body(**said)).json()["result"]
    assert (told["fromDate"], told["toDate"], told["resourceId"]) == (str(DAY), str(DAY), HASH)


def test_366_days_are_given_and_367_are_not(partner: Partner, store: Store) -> None:
    event = store.put(day_before(366), 5)
    store.close_days()
    assert_refused(ask(partner, day_before(367)), 400, "DATE_RANGE_TOO_LARGE", "366")
    told = submit(partner, day_before(366), day_before(1))
    assert told["progress"]["days"] == 366
    url = wait_until("it is built", lambda: read(partner, told["requestId"])["downloadUrl"], 120)
    archive = Archive(get(url).content)
    assert len(archive.names) == 366
    assert archive.lines(day_before(366)) == [event.line]


def test_progress_is_seen_between(settings: Settings, key: str, store: Store) -> None:
    for number in (2, 3):
        store.fill(day_before(number), 300)
    store.fill(DAY, 60_000)
    store.close_days()
    seen: list[dict[str, Any]] = []
    with serving(settings, QUICK) as api:
        partner = Partner(api, key)
        id_ = submit(partner)["requestId"]
        while (found := read(partner, id_))["status"] in ("SUBMITTED", "PROCESSING"):
            seen.append(found["progress"])
            time.sleep(0.02)
    assert found["status"] == "SUCCESS"
    for name in ("daysBuilt", "events", "percent"):
        assert [one[name] for one in seen] == sorted(one[name] for one in seen)
    assert {2} <= {one["daysBuilt"] for one in seen} <= {0, 1, 2, 3}
    within = [one for one in seen if one["daysBuilt"] == 2 and 600 < one["events"] < 60_600]
    assert within, seen[-5:]
    assert all(66 <= one["percent"] < 100 for one in within)


def test_a_days_eviction_takes_nothing_from_a_request(partner: Partner, settings: Settings, filled: Store) -> None:
    url = ended(partner, submit(partner)["requestId"])["downloadUrl"]
    before = get(url).content
    tidy(settings.exhaust_folder, 0)
    assert not list(settings.exhaust_folder.glob("??/*/*.zip"))
    filled.clickhouse.rows("TRUNCATE TABLE learning_events")
    assert get(url).content == before


def test_files_of_another_machine_are_made_here(partner: Partner, settings: Settings, filled: Store) -> None:
    url = ended(partner, submit(partner)["requestId"])["downloadUrl"]
    before = get(url).content
    for path in kept_files(settings):
        path.unlink()
    tidy(settings.exhaust_folder, 0)
    assert get(url).content == before


def test_downloads_by_link_are_in_the_log(settings: Settings, key: str, filled: Store, clickhouse: ClickHouse) -> None:
    with serving(settings, QUICK) as api:
        partner = Partner(api, key)
        url = ended(partner, submit(partner)["requestId"])["downloadUrl"]
        sent = len(get(url).content)
        get(url, headers={"range": "bytes=7-16"})
    rows = clickhouse.rows(
        "SELECT licence, dataset, resource, first_day, last_day, what, status, first_byte, sent_bytes, complete "
        "FROM exhaust_downloads ORDER BY at, status"
    )
    who = ("partner", "D001", HASH, FIRST, DAY, "archive")
    assert [tuple(row) for row in rows] == [(*who, 200, 0, sent, True), (*who, 206, 7, 10, True)]


def test_the_same_again_is_the_same_request(partner: Partner, filled: Store) -> None:
    first = submit(partner, eid=["LOG", "INTERACT"])
    assert submit(partner, eid=["INTERACT", "LOG", "LOG"])["requestId"] == first["requestId"]
    ended(partner, first["requestId"])
    again = submit(partner, eid=["LOG", "INTERACT"])
    assert (again["requestId"], again["status"]) == (first["requestId"], "SUCCESS")
    assert get(again["downloadUrl"]).status_code == 200
    assert submit(partner)["requestId"] != first["requestId"]


def test_what_is_built_is_told_of_without_clickhouse(
    settings: Settings, make_settings: Callable[..., Settings], key: str, filled: Store, registry: Engine
) -> None:
    with serving(settings, QUICK) as api:
        partner = Partner(api, key)
        id_ = ended(partner, submit(partner)["requestId"])["requestId"]
    tidy(settings.exhaust_folder, 0)
    with serving(make_settings(clickhouse=f"http://127.0.0.1:{unused_port()}/x"), QUICK) as api:
        partner = Partner(api, key)
        again = submit(partner)
        assert again["requestId"] == id_
        assert get(again["downloadUrl"]).status_code == 200
        assert_refused(ask(partner, DAY, DAY), 503, "INTERNAL_ERROR")
        Revisions(registry).add(D001, None, DAY, DAY, "an erase")
        assert get(again["downloadUrl"]).status_code in (500, 503)
        failed = ended(partner, id_, "FAILED")
        assert_refused(get(again["downloadUrl"]), 500, "INTERNAL_ERROR", failed["errmsg"])


def test_nobody_learns_of_anothers_requests(api: Api, partner: Partner, filled: Store, registry: Engine) -> None:
    other = Partner(api, Licences(registry).create("other", [("D001", HASH)]))
    id_ = ended(partner, submit(partner)["requestId"])["requestId"]
    token = read(partner, id_)["downloadUrl"].partition("token=")[2]
    mine = ended(other, submit(other)["requestId"])["requestId"]
    assert mine != id_
    unknown = "00000000-0000-4000-8000-000000000000"
    replies = []
    for one in (id_, unknown, "x", "%ff", "..%2f" + mine, id_.upper(), "x" * 4000):
        replies.append(other.http.get(f"{BASE}/read/{one}", headers=other.bearer))
        replies.append(other.http.get(f"{BASE}/list?after={one}", headers=other.bearer))
    for reply in replies:
        assert_refused(reply, 403, "AUTHORIZATION_FAILED")
    assert len({reply.json()["params"]["errmsg"] for reply in replies}) == 1
    for one in (mine, unknown, "x", "%ff", "%00"):
        assert_refused(get(f"{api.url}{BASE}/download/{one}?token={token}"), 403, "AUTHORIZATION_FAILED")
    listed = other.http.get(f"{BASE}/list", headers=other.bearer).json()["result"]
    assert [one["requestId"] for one in listed["requests"]] == [mine]


def test_the_list_is_read_page_by_page(partner: Partner, filled: Store) -> None:
    made = [submit(partner, DAY, DAY, eid=[f"E{number}"])["requestId"] for number in range(5)]
    for one in made:
        ended(partner, one)

    def page(query: str) -> dict[str, Any]:
        reply = partner.http.get(f"{BASE}/list?{query}", headers=partner.bearer)
        assert reply.status_code == 200, reply.text
        return dict(reply.json()["result"])

    assert [one["requestId"] for one in page("")["requests"]] == made[::-1]
    assert page("")["next"] is None
    listed, after = [], ""
    while after is not None:
        found = page(f"limit=2&after={after}" if after else "limit=2")
        assert len(found["requests"]) in (1, 2)
        listed += [one["requestId"] for one in found["requests"]]
        assert get(found["requests"][0]["downloadUrl"]).status_code == 200
        after = found["next"]
    assert listed == made[::-1]
    for query in ("limit=0", "limit=101", "limit=x", "limit=-1", "limit=", "limit=%D9%A1"):
        reply = partner.http.get(f"{BASE}/list?{query}", headers=partner.bearer)
        assert_refused(reply, 400, "INVALID_DATA_ERROR", "100")


def test_so_many_may_be_open(partner: Partner, filled: Store, registry: Engine) -> None:
    requests = Requests(registry, lambda: datetime.now(UTC) + timedelta(hours=1))  # no runner has its lease
    [licence_id] = licence_ids(registry)
    for number in range(MAX_OPEN):
        requests.submit(licence_id, Ask("D001", HASH, DAY, DAY, Variant(eids=(f"E{number}",))))
        requests.claim("somebody", 3_600)
    assert_refused(ask(partner), 429, "TOO_MANY_REQUESTS", str(MAX_OPEN))
