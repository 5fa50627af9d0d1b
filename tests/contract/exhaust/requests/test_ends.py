"""Quota, expiry, and days that are revised."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from prometheus_client import REGISTRY
from sqlalchemy import Engine

from midstream.exhaust.dataset import D001, Dataset
from midstream.exhaust.variant import Variant
from midstream.registry.exhaust.datasets import Datasets
from midstream.registry.exhaust.requests import Ask, Requests
from midstream.registry.exhaust.revisions import Revisions
from midstream.settings import Settings
from serve.exhaust.requests.jobs import Pace
from tests.contract.exhaust.archive import Archive
from tests.contract.exhaust.conftest import HASH, TODAY, Partner, Store, day_before, serving
from tests.contract.exhaust.requests.asking import (
    DAY,
    FIRST,
    QUICK,
    SLOW_LOOK,
    Clock,
    assert_refused,
    ended,
    get,
    kept_files,
    licence_ids,
    read,
    submit,
)
from tests.support.waiting import wait_until


def test_no_more_than_the_quota(make_settings: Callable[..., Settings], key: str, store: Store) -> None:
    store.fill(FIRST, 200)
    store.fill(day_before(2), 200)
    store.fill(DAY, 5_000)
    store.close_days()
    with serving(settings := make_settings(exhaust_request_bytes=1 << 20), QUICK) as api:
        partner = Partner(api, key)
        small = ended(partner, submit(partner, FIRST, day_before(2))["requestId"])
        before = kept_files(settings)
        failed = ended(partner, submit(partner, FIRST, DAY)["requestId"], "FAILED")
        for word in (str(1 << 20), str(small["bytes"]), "licence"):
            assert word in failed["errmsg"]
        assert (failed["downloadUrl"], failed["bytes"], failed["expiresAt"]) == (None, None, None)
        assert kept_files(settings) == before
        assert get(small["downloadUrl"]).status_code == 200
        assert submit(partner, FIRST, DAY)["requestId"] != failed["requestId"]


def test_the_quota_is_of_all_requests_together(make_settings: Callable[..., Settings], key: str, store: Store) -> None:
    store.fill(FIRST, 2_000)
    store.fill(DAY, 2_000)
    store.close_days()
    clock = Clock()
    with serving(make_settings(exhaust_request_bytes=1 << 20), QUICK, clock) as api:
        partner = Partner(api, key)
        first = ended(partner, submit(partner, FIRST, FIRST)["requestId"])
        assert 1 << 19 < first["bytes"] < 1 << 20
        ended(partner, submit(partner, DAY, DAY)["requestId"], "FAILED")
        clock.ahead = timedelta(hours=73)
        ended(partner, submit(partner, DAY, DAY)["requestId"])


def test_it_expires(make_settings: Callable[..., Settings], key: str, filled: Store) -> None:
    clock = Clock()
    with serving(settings := make_settings(exhaust_request_hours=2), QUICK, clock) as api:
        partner = Partner(api, key)
        found = ended(partner, submit(partner)["requestId"])
        assert len(kept_files(settings)) == 6
        clock.ahead = timedelta(hours=2, seconds=1)
        told = read(partner, found["requestId"])
        assert (told["status"], told["downloadUrl"], told["events"]) == ("EXPIRED", None, 900)
        assert_refused(get(found["downloadUrl"]), 403, "AUTHORIZATION_FAILED")
        wait_until("its files are gone", lambda: not kept_files(settings))
        assert not list((settings.exhaust_folder / "requests").iterdir())
        assert read(partner, found["requestId"])["status"] == "EXPIRED"
        anew = ended(partner, submit(partner)["requestId"])
        assert anew["requestId"] != found["requestId"]
        assert get(anew["downloadUrl"]).status_code == 200


def test_it_expires_with_the_retention_of_its_days(partner: Partner, filled: Store, registry: Engine) -> None:
    Datasets(registry).declare(Dataset("D001", "tags", retention_days=3))
    time.sleep(1.05)
    found = ended(partner, submit(partner)["requestId"])
    midnight = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC) + timedelta(days=1)
    assert datetime.fromisoformat(found["expiresAt"]) == midnight


def test_gauges_tell_what_waits_and_what_is_held(settings: Settings, key: str, filled: Store, registry: Engine) -> None:
    def gauge(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"midstream_exhaust_{name}")

    with serving(settings, Pace(poll_s=3_600, tell_s=0.05, look_s=0.1)) as api:
        partner = Partner(api, key)
        first = ended(partner, submit(partner)["requestId"])
        wait_until("its bytes are told", lambda: gauge("request_bytes") == first["bytes"])
        time.sleep(0.5)  # the runner has found nothing more
        [licence_id] = licence_ids(registry)
        Requests(registry).submit(licence_id, Ask("D001", HASH, FIRST, FIRST, Variant()))
        wait_until("one waits", lambda: gauge("requests_open") == 1)
        second = ended(partner, submit(partner, DAY, DAY)["requestId"])
        wait_until("none waits", lambda: gauge("requests_open") == 0)
        assert (gauge("request_bytes") or 0) > first["bytes"] + second["bytes"]


def test_folders_that_are_nobodys_are_removed(partner: Partner, settings: Settings, filled: Store) -> None:
    found = ended(partner, submit(partner)["requestId"])
    folder = settings.exhaust_folder / "requests"
    for name in ("00000000-0000-4000-8000-000000000000.abc", f"{found['requestId']}.{'0' * 16}", "x"):
        (folder / name).mkdir()
        (folder / name / "file").write_bytes(b"x")
    wait_until("they are gone", lambda: len(list(folder.iterdir())) == 1)
    assert get(found["downloadUrl"]).status_code == 200


def test_what_was_erased_is_not_given_any_more(settings: Settings, key: str, filled: Store, registry: Engine) -> None:
    erased = filled.put(DAY, 100, batch_id="erased")
    with serving(settings, SLOW_LOOK) as api:  # what happens here is done by the calls themselves
        partner = Partner(api, key)
        found = ended(partner, submit(partner)["requestId"])
        before = get(found["downloadUrl"])
        assert erased.line in Archive(before.content).lines(DAY)
        old = kept_files(settings)
        filled.clickhouse.rows(
            "ALTER TABLE learning_events DELETE WHERE batch_id = 'erased' SETTINGS mutations_sync = 2"
        )
        Revisions(registry).add(D001, HASH, DAY, DAY, "a person was erased")
        assert_refused(get(found["downloadUrl"]), 503, "INTERNAL_ERROR", "anew")
        assert not any(path.exists() for path in old if path.name.startswith(f"{DAY}.0"))
        told = ended(partner, found["requestId"])
        assert told["events"] == 900
        for url in (found["downloadUrl"], told["downloadUrl"]):
            after = get(url)
            assert after.headers["etag"] != before.headers["etag"]
            assert after.content == partner.post(FIRST, DAY).content
            assert erased.line not in Archive(after.content).lines(DAY)


def test_files_of_before_a_revision_go_though_nobody_asks(
    partner: Partner, settings: Settings, filled: Store, registry: Engine
) -> None:
    ended(partner, submit(partner)["requestId"])
    old = [path for path in kept_files(settings) if path.name.startswith(f"{DAY}.0")]
    assert len(old) == 2
    Revisions(registry).add(D001, None, DAY, DAY, "an erase")
    wait_until("the old files are gone", lambda: not any(path.exists() for path in old))
    wait_until("it is built anew", lambda: len(kept_files(settings)) == 6)


def test_a_revision_while_it_is_built(settings: Settings, key: str, store: Store, registry: Engine) -> None:
    store.fill(day_before(2), 100)
    store.fill(DAY, 40_000)
    store.close_days()
    with serving(settings, QUICK) as api:
        partner = Partner(api, key)
        id_ = submit(partner, day_before(2), DAY)["requestId"]
        wait_until("the first day is built", lambda: read(partner, id_)["progress"]["daysBuilt"] == 1)
        Revisions(registry).add(D001, None, day_before(2), day_before(2), "an erase")
        assert read(partner, id_)["status"] == "PROCESSING"
        url = ended(partner, id_)["downloadUrl"]
        assert get(url).content == partner.post(day_before(2), DAY).content
        names = {path.name for path in kept_files(settings)}
        assert f"{day_before(2)}.0.zip" not in names
        assert len(names) == 4
