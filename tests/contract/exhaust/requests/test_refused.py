"""What is refused, and links that open nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine

from midstream.exhaust.dataset import Dataset
from midstream.exhaust.variant import Variant
from midstream.registry.exhaust.datasets import Datasets
from midstream.registry.exhaust.licences import Licences
from midstream.registry.exhaust.requests import Ask, Requests
from midstream.registry.keyfile import Cipher
from midstream.settings import Settings
from tests.contract.exhaust.conftest import HASH, TODAY, Partner, Store, day_before, serving
from tests.contract.exhaust.requests.asking import (
    BASE,
    DAY,
    FIRST,
    QUICK,
    Clock,
    ask,
    assert_refused,
    ended,
    ended_row,
    get,
    kept_files,
    licence_ids,
    read,
    submit,
)
from tests.support.waiting import wait_until


@pytest.mark.parametrize(
    "change",
    [
        {"datasetId": None}, {"datasetId": 1}, {"datasetId": ["D001"]}, {"resourceId": None}, {"resourceId": {}},
        {"fromDate": 20260101}, {"toDate": []}, {"format": 1}, {"format": False}, {"format": []}, {"format": "xml"},
        {"eid": "LOG"}, {"eid": [1]}, {"eid": [None]}, {"eid": {}}, {"eid": [""]}, {"eid": 0}, {"channel": "a"},
        {"channel": [["a"]]}, {"channel": ["x" * 300]}, {"eid": [f"E{number}" for number in range(101)]},
    ],
    ids=lambda change: str(change)[:40],
)  # fmt: skip
def test_bodies_that_cannot_be(partner: Partner, change: dict[str, Any]) -> None:
    assert_refused(ask(partner, **change), 400, "INVALID_DATA_ERROR")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"request": []}', b"{}", b'{"x": "' + b"x" * 10_000_000])
def test_bodies_that_are_no_request(partner: Partner, content: bytes) -> None:
    assert_refused(partner.http.post(f"{BASE}/submit", content=content), 400, "INVALID_DATA_ERROR")


def test_body_licence_right_dates_days(partner: Partner, store: Store, registry: Engine) -> None:
    unknown = {"licensekey": "00000000-0000-4000-8000-000000000000"}
    wrong = {"resourceId": "b" * 40}
    assert_refused(ask(partner, "x", "y", **unknown, **wrong, eid=1), 400, "INVALID_DATA_ERROR")
    assert_refused(ask(partner, "x", "y", **unknown, **wrong), 401, "LOGIN_FAILED")
    assert_refused(ask(partner, "x", "y", **wrong), 403, "AUTHORIZATION_FAILED")
    assert_refused(ask(partner, "x", "y", datasetId="D002"), 403, "AUTHORIZATION_FAILED")
    assert_refused(ask(partner, "x", "y"), 400, "INVALID_DATE")
    assert_refused(ask(partner, "2026-02-30", DAY), 400, "INVALID_DATE")
    assert_refused(ask(partner, DAY, TODAY), 400, "INVALID_DATE")
    assert_refused(ask(partner, day_before(400), TODAY), 400, "INVALID_DATE")
    store.put(DAY)
    assert_refused(ask(partner), 503, "INTERNAL_ERROR", str(FIRST))
    Datasets(registry).declare(Dataset("D001", "tags", retention_days=2))
    time.sleep(1.05)
    assert_refused(ask(partner), 410, "INVALID_DATE", str(FIRST))
    listed = partner.http.get(f"{BASE}/list", headers=partner.bearer).json()["result"]["requests"]
    assert listed == []


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x", "Token {}", "Basic {}"])
@pytest.mark.parametrize("path", ["list", "read/00000000-0000-4000-8000-000000000000"])
def test_no_key(partner: Partner, path: str, authorization: str) -> None:
    headers = {"authorization": authorization.format(partner.key)}
    assert_refused(partner.http.get(f"{BASE}/{path}", headers=headers), 401, "LOGIN_FAILED")


def test_other_methods_and_paths_are_refused_in_the_same_form(partner: Partner) -> None:
    for method, path, status in (("GET", "submit", 405), ("POST", "list", 405), ("GET", "", 404), ("GET", "x", 404)):
        reply = partner.http.request(method, f"{BASE}/{path}", headers=partner.bearer)
        assert (reply.status_code, reply.json()["params"]["status"]) == (status, "failed")


def test_tokens_that_open_nothing(partner: Partner, settings: Settings, filled: Store) -> None:
    found = ended(partner, submit(partner)["requestId"])
    base, _, token = found["downloadUrl"].partition("?token=")
    cipher = Cipher(settings)
    until = int(time.time()) + 1_000
    made = [
        *(f"exhaust-request {found['requestId']} {int(time.time()) - 1}", f"other {found['requestId']} {until}"),
        *(f"exhaust-request {found['requestId']} ", f"exhaust-request {found['requestId']} x", found["requestId"], ""),
        f"exhaust-request 00000000-0000-4000-8000-000000000000 {until}",
    ]
    altered = token[:30] + ("A" if token[30] != "A" else "B") + token[31:]
    tokens = [altered, token[:-4], "A" + token, token[::-1], "", "x", "%00", "%ff", "x" * 3_000]
    for one in (*tokens, *(cipher.encrypt(text).decode() for text in made)):
        assert_refused(get(f"{base}?token={one}"), 403, "AUTHORIZATION_FAILED")
    assert_refused(get(base), 403, "AUTHORIZATION_FAILED")
    good = cipher.encrypt(f"exhaust-request {found['requestId']} {until}").decode()
    assert get(f"{base}?token={good}").status_code == 200


def test_a_link_is_good_for_some_hours_and_the_next_is_new(partner: Partner, filled: Store, clock: Clock) -> None:
    found = ended(partner, submit(partner)["requestId"])
    clock.ahead = timedelta(hours=5, minutes=59)
    assert get(found["downloadUrl"]).status_code == 200
    clock.ahead = timedelta(hours=6, seconds=1)
    assert_refused(get(found["downloadUrl"]), 403, "AUTHORIZATION_FAILED")
    again = read(partner, found["requestId"])["downloadUrl"]
    assert get(again).status_code == 200
    clock.ahead = timedelta(hours=71, minutes=59)
    last = read(partner, found["requestId"])["downloadUrl"]
    assert get(last).status_code == 200
    clock.ahead = timedelta(hours=72, seconds=1)
    assert_refused(get(last), 403, "AUTHORIZATION_FAILED")


def test_links_follow_the_public_url(make_settings: Callable[..., Settings], key: str, filled: Store) -> None:
    with serving(make_settings(public_url="https://data.example.org/api/"), QUICK) as api:
        partner = Partner(api, key)
        url = ended(partner, submit(partner)["requestId"])["downloadUrl"]
        assert url.startswith("https://data.example.org/api/v1/dataset/request/download/")
        parts = urlsplit(url)
        assert get(f"{api.url}{parts.path.removeprefix('/api')}?{parts.query}").status_code == 200


@pytest.mark.parametrize("how", ["revoked", "made anew", "right withdrawn"])
def test_a_link_ends_with_its_licence(partner: Partner, filled: Store, registry: Engine, how: str) -> None:
    found = ended(partner, submit(partner)["requestId"])
    assert get(found["downloadUrl"]).status_code == 200
    licences = Licences(registry)
    if how == "right withdrawn":
        licences.withdraw("partner", [("D001", HASH)])
    else:
        licences.revoke("partner")
    if how == "made anew":
        anew = Partner(partner.api, licences.create("partner", [("D001", HASH)]))
    time.sleep(1.05)
    assert_refused(get(found["downloadUrl"]), 403, "AUTHORIZATION_FAILED")
    if how == "made anew":
        listed = anew.http.get(f"{BASE}/list", headers=anew.bearer).json()["result"]
        assert listed == {"requests": [], "next": None}
        assert submit(anew)["requestId"] != found["requestId"]
    elif how == "right withdrawn":
        assert read(partner, found["requestId"])["downloadUrl"] is None
        assert_refused(ask(partner), 403, "AUTHORIZATION_FAILED")


def test_a_request_whose_licence_ends_fails(settings: Settings, key: str, filled: Store, registry: Engine) -> None:
    [licence_id] = licence_ids(registry)
    row = Requests(registry).submit(licence_id, Ask("D001", HASH, FIRST, DAY, Variant()))
    Licences(registry).revoke(key)
    with serving(settings, QUICK):
        found = wait_until("it has ended", lambda: ended_row(registry, row.id))
    assert (found.status, found.message is not None and "right" in found.message) == ("FAILED", True)
    assert kept_files(settings) == []
