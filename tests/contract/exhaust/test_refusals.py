"""Every error code, and which comes first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from midstream.exhaust.dataset import Dataset
from midstream.registry.exhaust.datasets import Datasets
from midstream.registry.exhaust.licences import Licences
from tests.contract.exhaust.conftest import HASH, TODAY, Api, Partner, Store, day_before

DAY = day_before(1)


def assert_refused(reply: Any, status: int, code: str, *words: str) -> None:
    assert (reply.status_code, reply.json()["params"]["err"]) == (status, code), reply.text
    body = reply.json()
    assert body["id"] == "ekstep.data_exhaust_dataset_service"
    assert body["ver"] == "1.0"
    assert datetime.fromisoformat(body["ts"]).utcoffset() == timedelta(0)
    assert body["params"]["status"] == "failed"
    assert body["params"]["resmsgid"]
    for word in words:
        assert word in body["params"]["errmsg"]
    assert ("retry-after" in reply.headers) == (status == 503)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b'"text"', b"null", b"{}", b'{"request": null}', b'{"request": []}', b"\xff\xfe"),
        b'{"request": ' + b"[" * 100_000,
        b'{"request": {"licensekey": "' + b"x" * 10_000_000 + b'"}}',
    ],
    ids=lambda content: content[:20].decode("latin-1"),
)
def test_bodies_that_cannot_be(partner: Partner, content: bytes) -> None:
    assert_refused(partner.http.post(f"{partner.path}/{DAY}/{DAY}", content=content), 400, "INVALID_DATA_ERROR")


def test_the_sender_finds_its_message_again(partner: Partner) -> None:
    reply = partner.http.post(f"{partner.path}/x", json={**partner.body(), "params": {"msgid": "m-7"}})
    assert reply.json()["params"]["msgid"] == "m-7"


@pytest.mark.parametrize(
    "request_",
    [{}, {"licensekey": None}, {"licensekey": 7}, {"licensekey": ""}, {"licensekey": "x"}]
    + [{name: "00000000-0000-4000-8000-000000000000"} for name in ("licensekey", "licenseKey", "licence")],
    ids=str,
)
def test_no_key_or_nobodys(partner: Partner, request_: dict[str, Any]) -> None:
    body = {**partner.body(), "request": request_}
    assert_refused(partner.http.post(f"{partner.path}/{DAY}/{DAY}", json=body), 401, "LOGIN_FAILED")


@pytest.mark.parametrize("name", ["licensekey", "licenseKey"])
def test_both_spellings_of_the_key(partner: Partner, store: Store, name: str) -> None:
    store.close_days()
    body = partner.body(**{name: partner.key.upper()})
    assert partner.http.post(f"{partner.path}/{DAY}/{DAY}", json=body).status_code == 200


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x", "Token {}", "{}", "Basic {}"])
def test_a_get_without_its_key(partner: Partner, authorization: str) -> None:
    headers = {"authorization": authorization.format(partner.key)}
    for method in ("GET", "HEAD"):
        reply = partner.http.request(method, f"{partner.path}/{DAY}/{DAY}", headers=headers)
        assert reply.status_code == 401
    assert_refused(partner.http.get(f"{partner.path}/{DAY}/{DAY}/manifest", headers=headers), 401, "LOGIN_FAILED")


def test_a_revoked_key_opens_nothing_within_a_second(partner: Partner, store: Store, registry: Engine) -> None:
    import time

    store.close_days()
    assert partner.post(DAY, DAY).status_code == 200
    Licences(registry).revoke(partner.key)
    time.sleep(1.05)
    assert_refused(partner.post(DAY, DAY), 401, "LOGIN_FAILED")


@pytest.mark.parametrize(
    ("dataset", "resource"),
    [
        ("D001", "b" * 40),
        ("D001", HASH + "0"),
        ("D001", HASH[:31]),
        ("D001", HASH[:39]),
        ("D001", HASH[:39] + "g"),
        ("D001", "%00"),
        ("D001", "..%2f..%2fetc"),
        ("D001", "%2e%2e"),
        ("D001", "%ff"),
        ("D001", "x" * 4000),
        ("D002", HASH),
        ("d001", HASH),
        ("..%2fD001", HASH),
        ("D001%00", HASH),
        ("%ff", HASH),
        ("D" * 4000, HASH),
    ],
)
def test_what_the_key_has_no_right_to(api: Api, partner: Partner, dataset: str, resource: str) -> None:
    other = Partner(api, partner.key, dataset, resource)
    assert_refused(other.post(DAY, DAY), 403, "AUTHORIZATION_FAILED")
    assert_refused(other.get(DAY, DAY, "manifest"), 403, "AUTHORIZATION_FAILED")


def test_plain_dots_in_a_path_lead_nowhere(partner: Partner) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", partner.api.settings.port, timeout=10)
    connection.request("GET", f"/v1/datasets/D001/../../{DAY}/{DAY}", headers=partner.bearer)
    assert connection.getresponse().status in (403, 404)
    connection.close()


@pytest.mark.parametrize(
    ("first", "last", "word"),
    [
        ("2026-02-30", "2026-03-01", "2026-02-30"),
        ("2025-02-29", "2025-03-01", "2025-02-29"),
        ("2026-2-1", "2026-02-02", "YYYY-MM-DD"),
        ("20260201", "20260202", "YYYY-MM-DD"),
        ("2026-02-01T00:00:00", "2026-02-02", "YYYY-MM-DD"),
        ("today", "today", "YYYY-MM-DD"),
        ("%00", "%00", "YYYY-MM-DD"),
        ("2026-02-0١", "2026-02-02", "YYYY-MM-DD"),
        ("2026-02-02", "2026-02-01", "after"),
        (DAY, TODAY, "today"),
        (TODAY, TODAY, "today"),
        (DAY, TODAY + timedelta(days=1), "today"),
        (day_before(-1), day_before(-1), "today"),
        ("0000-01-01", "0000-01-02", "0000-01-01"),
    ],
)
def test_days_that_cannot_be(partner: Partner, first: object, last: object, word: str) -> None:
    assert_refused(partner.post(first, last), 400, "INVALID_DATE", word)


def test_31_days_are_given_and_32_are_not(partner: Partner, store: Store) -> None:
    store.close_days()
    assert len(partner.archive(day_before(31), DAY).names) == 31
    assert_refused(partner.post(day_before(32), DAY), 400, "DATE_RANGE_TOO_LARGE", "32")


def test_a_day_that_cannot_be_comes_before_too_many_of_them(partner: Partner) -> None:
    assert_refused(partner.post(day_before(60), TODAY), 400, "INVALID_DATE")


def test_a_leap_day_is_a_day(partner: Partner, store: Store) -> None:
    store.close_days()
    assert partner.archive("2024-02-28", "2024-03-01").names[1] == "aggregated-2024-02-29.gz"


def test_body_licence_right_dates(api: Api, partner: Partner) -> None:
    stranger = Partner(api, "00000000-0000-4000-8000-000000000000", resource="b" * 40)
    assert_refused(stranger.http.post(f"{stranger.path}/x/y", content=b"["), 400, "INVALID_DATA_ERROR")
    assert_refused(stranger.post("x", "y"), 401, "LOGIN_FAILED")
    assert_refused(Partner(api, partner.key, resource="b" * 40).post("x", "y"), 403, "AUTHORIZATION_FAILED")
    assert_refused(partner.post("x", "y"), 400, "INVALID_DATE")


def test_a_day_that_is_not_closed_is_named(partner: Partner, store: Store) -> None:
    store.put(DAY)
    assert_refused(partner.post(DAY, DAY), 503, "INTERNAL_ERROR", str(DAY))
    midnight = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC)
    store.close_days(midnight - timedelta(milliseconds=1))
    assert_refused(partner.post(day_before(2), DAY), 503, "INTERNAL_ERROR", str(DAY))
    assert_refused(partner.get(day_before(2), DAY, "manifest"), 503, "INTERNAL_ERROR", str(DAY))
    assert partner.post(day_before(2), day_before(2)).status_code == 200
    store.close_days(midnight)
    assert partner.post(day_before(2), DAY).status_code == 200


def test_a_day_past_the_datasets_retention_is_named(partner: Partner, store: Store, registry: Engine) -> None:
    Datasets(registry).declare(Dataset("D001", "tags", retention_days=5))
    store.close_days()
    assert partner.post(day_before(5), DAY).status_code == 200
    assert_refused(partner.post(day_before(6), DAY), 410, "INVALID_DATE", str(day_before(6)))


def test_a_day_whose_events_retention_has_deleted_is_named_unless_it_was_built(partner: Partner, store: Store) -> None:
    old = day_before(80)
    event = store.put(old)
    store.close_days()
    assert partner.archive(old, old).lines(old) == [event.line]
    store.clickhouse.rows(
        "INSERT INTO progress_rows (topic, partition, complete_offset, published_at) "
        "VALUES ('telemetry.raw', 0, 1, now64(3) + toIntervalDay(30))"
    )
    assert partner.archive(old, old).lines(old) == [event.line]
    assert_refused(partner.post(day_before(81), day_before(79)), 410, "INVALID_DATE", str(day_before(81)))


@pytest.mark.parametrize("query", ["format=xml", "format=JSONL", "eid=", "channel=" + "x" * 300, "&eid=x%00"])
def test_formats_and_filters_that_cannot_be(partner: Partner, query: str) -> None:
    assert_refused(partner.post(DAY, DAY, query=f"?{query}"), 400, "INVALID_DATA_ERROR")


def test_too_many_values_of_a_filter(partner: Partner) -> None:
    query = "&".join(f"eid=E{number}" for number in range(101))
    assert_refused(partner.post(DAY, DAY, query=f"?{query}"), 400, "INVALID_DATA_ERROR")


def test_other_methods_and_paths_are_refused_in_the_same_form(partner: Partner) -> None:
    reply = partner.http.put(f"{partner.path}/{DAY}/{DAY}", json=partner.body())
    assert (reply.status_code, reply.json()["params"]["status"]) == (405, "failed")
    reply = partner.http.get("/v1/datasets/D001", headers=partner.bearer)
    assert (reply.status_code, reply.json()["params"]["status"]) == (404, "failed")
