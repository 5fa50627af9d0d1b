"""Parts of a download, and what a client needs to go on where it broke off."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from midstream.settings import Settings
from tests.contract.exhaust.conftest import Partner, Store, day_before, serving
from tests.support.waiting import wait_until

DAY, BEFORE = day_before(1), day_before(2)


@pytest.fixture
def whole(partner: Partner, store: Store) -> bytes:
    """A download of two days that are built."""
    for day in (BEFORE, DAY):
        store.fill(day, 500)
    store.close_days()
    return partner.archive(BEFORE, DAY).content


def test_any_part(partner: Partner, whole: bytes) -> None:
    chance = random.Random(1)
    total = len(whole)
    wanted = [(0, 0), (0, total - 1), (total - 1, total - 1), (29, 32_800)]
    wanted += [tuple(sorted(chance.sample(range(total), 2))) for _ in range(20)]  # type: ignore[misc]
    for first, last in wanted:
        for ask in (partner.get, partner.post):
            reply = ask(BEFORE, DAY, headers={"range": f"bytes={first}-{last}"})
            assert reply.status_code == 206
            assert reply.content == whole[first : last + 1]
            assert reply.headers["content-range"] == f"bytes {first}-{last}/{total}"
            assert reply.headers["content-type"] == "application/zip"


@pytest.mark.parametrize(
    ("range_", "first"),
    [("bytes=100-", 100), ("bytes=-100", -100), ("bytes=-999999999", 0), ("bytes=5-999999999", 5)],
)
def test_parts_to_the_end(partner: Partner, whole: bytes, range_: str, first: int) -> None:
    reply = partner.get(BEFORE, DAY, headers={"range": range_})
    assert (reply.status_code, reply.content) == (206, whole[first:])


@pytest.mark.parametrize("range_", ["bytes=999999999-", "bytes=-0"])
def test_bytes_that_are_not_there(partner: Partner, whole: bytes, range_: str) -> None:
    reply = partner.get(BEFORE, DAY, headers={"range": range_})
    assert (reply.status_code, reply.headers["content-range"]) == (416, f"bytes */{len(whole)}")


@pytest.mark.parametrize(
    "range_",
    ["bytes=0-1,5-6", "items=0-1", "bytes=", "bytes=-", "bytes=9-3", "bytes=a-b", "bytes=0-" + "9" * 40, "0-1"],
)
def test_what_is_no_single_range_is_answered_whole(partner: Partner, whole: bytes, range_: str) -> None:
    reply = partner.get(BEFORE, DAY, headers={"range": range_})
    assert (reply.status_code, reply.content) == (200, whole)


def test_a_part_of_this_version_alone(partner: Partner, whole: bytes) -> None:
    tag = partner.get(BEFORE, DAY).headers["etag"]
    good = partner.post(BEFORE, DAY, headers={"range": "bytes=7-9", "if-range": tag})
    assert (good.status_code, good.content) == (206, whole[7:10])
    for stale in ('"other"', f"W/{tag}", "Sat, 01 Jan 2000 00:00:00 GMT"):
        reply = partner.post(BEFORE, DAY, headers={"range": "bytes=7-9", "if-range": stale})
        assert (reply.status_code, reply.content) == (200, whole)


def test_who_has_it_is_not_sent_it_again(partner: Partner, whole: bytes) -> None:
    tag = partner.get(BEFORE, DAY).headers["etag"]
    for path in ((BEFORE, DAY), (BEFORE, DAY, "manifest")):
        reply = partner.get(*path, headers={"if-none-match": f'"x", {tag}'})
        assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", tag)
    assert partner.get(BEFORE, DAY, headers={"if-none-match": '"x"'}).content == whole


def test_head_tells_what_get_would(partner: Partner, whole: bytes) -> None:
    reply = partner.http.head(f"{partner.path}/{BEFORE}/{DAY}", headers=partner.bearer)
    get = partner.get(BEFORE, DAY)
    assert (reply.status_code, reply.content) == (200, b"")
    for name in ("content-length", "etag", "content-type", "accept-ranges", "content-disposition"):
        assert reply.headers[name] == get.headers[name]


def test_head_of_what_is_not_built_says_no_length(partner: Partner, store: Store) -> None:
    store.put(DAY)
    store.close_days()
    reply = partner.http.head(f"{partner.path}/{DAY}/{DAY}", headers=partner.bearer)
    assert reply.status_code == 200
    assert "content-length" not in reply.headers
    assert reply.headers["etag"] == partner.post(DAY, DAY).headers["etag"]


def test_a_part_of_what_is_not_built_is_built_first(partner: Partner, store: Store) -> None:
    for day in (BEFORE, DAY):
        store.fill(day, 500)
    store.close_days()
    part = partner.post(BEFORE, DAY, headers={"range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == partner.archive(BEFORE, DAY).content[100:200]


def test_days_that_take_longer_are_said_to_and_built_on(
    make_settings: Callable[..., Settings], key: str, store: Store
) -> None:

    for day in (BEFORE, DAY):
        store.fill(day, 500)
    store.close_days()
    with serving(make_settings(exhaust_wait_ms=100)) as api:
        partner = Partner(api, key)
        reply = partner.get(BEFORE, DAY, "manifest")
        assert (reply.status_code, reply.json()["params"]["err"]) == (503, "INTERNAL_ERROR")
        assert str(BEFORE) in reply.json()["params"]["errmsg"]
        assert int(reply.headers["retry-after"]) > 0
        wait_until("both days are built", lambda: partner.get(BEFORE, DAY, "manifest").status_code == 200)
