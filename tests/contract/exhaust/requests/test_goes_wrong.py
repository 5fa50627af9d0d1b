"""Processes that die, ClickHouse that is away, files that are removed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import Engine, update

from midstream.exhaust.dataset import D001
from midstream.exhaust.variant import Variant
from midstream.registry.exhaust.requests import Ask, Requests
from midstream.registry.exhaust.revisions import Revisions
from midstream.registry.exhaust.tables import Request
from midstream.settings import Settings
from serve.exhaust.days.builder.job import Job
from serve.exhaust.days.keeper import tidy
from serve.exhaust.days.shelf import Built, remove_day, slot
from serve.exhaust.requests.jobs import Pace
from serve.exhaust.requests.kept import Kept
from tests.contract.exhaust.conftest import HASH, Api, Partner, Store, day_before, serving
from tests.contract.exhaust.requests.asking import (
    BASE,
    DAY,
    FIRST,
    QUICK,
    ended,
    get,
    kept_files,
    licence_ids,
    read,
    submit,
    unused_port,
)
from tests.support.waiting import wait_until


def _serve_alone(settings: Settings) -> None:
    """The target of a process that is killed."""
    with serving(settings, Pace(poll_s=0.1, tell_s=0.05, lease_s=2.0)):
        time.sleep(120)


def test_another_process_takes_over_from_one_that_was_killed(
    make_settings: Callable[..., Settings], key: str, store: Store
) -> None:
    store.fill(FIRST, 300)
    store.fill(DAY, 60_000)
    store.close_days()
    first = make_settings()
    process = multiprocessing.get_context("spawn").Process(target=_serve_alone, args=(first,))
    process.start()
    try:
        http = httpx.Client(trust_env=False)
        wait_until("it serves", lambda: _answers(http, f"http://127.0.0.1:{first.port}{BASE}/list"), 30)
        killed = Api(first)
        partner = Partner(killed, key)
        id_ = submit(partner)["requestId"]
        wait_until("some of it is built", lambda: read(partner, id_)["progress"]["daysBuilt"] == 2)
        assert read(partner, id_)["status"] == "PROCESSING"
    finally:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(10)
    with serving(make_settings(), QUICK) as api:
        partner = Partner(api, key)
        assert read(partner, id_)["status"] == "PROCESSING"
        url = ended(partner, id_)["downloadUrl"]
        assert get(url).content == partner.post(FIRST, DAY).content


def test_a_process_that_stops_gives_its_request_back_at_once(
    make_settings: Callable[..., Settings], key: str, store: Store, registry: Engine
) -> None:
    store.fill(DAY, 60_000)
    store.close_days()
    with serving(make_settings(), Pace(poll_s=0.1, tell_s=0.05, lease_s=600)) as api:
        partner = Partner(api, key)
        id_ = submit(partner, DAY, DAY)["requestId"]
        wait_until("it is being built", lambda: read(partner, id_)["progress"]["events"] > 0)
    row = Requests(registry).get(id_)
    assert row is not None
    assert row.status == "SUBMITTED"
    with serving(make_settings(), QUICK) as api:
        ended(Partner(api, key), id_)


def test_without_clickhouse_it_is_tried_again_and_then_fails(
    make_settings: Callable[..., Settings], key: str, filled: Store, registry: Engine
) -> None:
    [licence_id] = licence_ids(registry)
    ask_ = Ask("D001", HASH, FIRST, DAY, Variant())
    row = Requests(registry).submit(licence_id, ask_)
    settings = make_settings(clickhouse=f"http://127.0.0.1:{unused_port()}/x")
    with serving(settings, QUICK) as api:
        partner = Partner(api, key)
        found = ended(partner, row.id, "FAILED")
        assert "ClickHouse does not answer" in found["errmsg"]
        assert str(FIRST) in found["errmsg"]
        assert "2 tries" in found["errmsg"]
        assert kept_files(settings) == []
    with serving(make_settings(), QUICK) as api:
        partner = Partner(api, key)
        assert ended(partner, submit(partner)["requestId"])["requestId"] != row.id


def test_clickhouse_that_is_back_in_time_costs_nothing(
    make_settings: Callable[..., Settings], key: str, filled: Store, registry: Engine
) -> None:
    settings = make_settings()
    parts = urlsplit(settings.clickhouse)
    [licence_id] = licence_ids(registry)
    row = Requests(registry).submit(licence_id, Ask("D001", HASH, FIRST, DAY, Variant()))
    port = unused_port()
    away = make_settings(clickhouse=f"http://127.0.0.1:{port}{parts.path}")
    with serving(away, Pace(poll_s=0.1, tell_s=0.05, lease_s=2.0, tries=100, pause_s=0.2)) as api:
        partner = Partner(api, key)
        time.sleep(3)  # longer than the lease
        assert read(partner, row.id)["status"] == "PROCESSING"
        with _forwarded(port, int(parts.port or 0)):
            assert ended(partner, row.id)["events"] == 900


def test_what_cannot_be_built_fails_with_a_message(
    settings: Settings, key: str, filled: Store, registry: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Kept, "keep", full)
    with serving(settings, QUICK) as api:
        partner = Partner(api, key)
        found = ended(partner, submit(partner)["requestId"], "FAILED")
        assert "log" in found["errmsg"]
        monkeypatch.undo()
        ended(partner, submit(partner)["requestId"])


def test_a_day_that_is_removed_as_soon_as_it_is_built_is_built_again(
    settings: Settings, key: str, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, kept = Kept.keep, []

    def removed_first(self: Kept, request_id: str, tag: str, job: Job, built: Built) -> Built:
        kept.append(job.day)
        if len(kept) == 1:
            remove_day(built.path.with_suffix(".json"))
        return keep(self, request_id, tag, job, built)

    monkeypatch.setattr(Kept, "keep", removed_first)
    with serving(settings, QUICK) as api:
        partner = Partner(api, key)
        assert ended(partner, submit(partner)["requestId"])["events"] == 900
    assert kept == [FIRST, FIRST, day_before(2), DAY]


def test_a_day_that_cannot_be_made_the_same_again(partner: Partner, settings: Settings, filled: Store) -> None:
    before = partner.post(DAY, DAY)
    tidy(settings.exhaust_folder, 0)
    (gone,) = settings.exhaust_folder.glob(f"??/*/{DAY}.0.gone")
    gone.write_text(json.dumps({**json.loads(gone.read_text()), "sha256": "0" * 64}))
    after = get(ended(partner, submit(partner, DAY, DAY)["requestId"])["downloadUrl"])
    assert after.headers["etag"] != before.headers["etag"]
    assert after.content == partner.post(DAY, DAY).content
    assert {path.name for path in kept_files(settings)}.isdisjoint({f"{DAY}.0.zip", f"{DAY}.0.json"})


def test_days_that_are_revised_again_and_again(
    settings: Settings, key: str, filled: Store, registry: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Kept.keep

    def then_revised(self: Kept, request_id: str, tag: str, job: Job, built: Built) -> Built:
        Revisions(registry).add(D001, None, job.day, job.day, "an erase")
        return keep(self, request_id, tag, job, built)

    monkeypatch.setattr(Kept, "keep", then_revised)
    with serving(settings, QUICK) as api:
        partner = Partner(api, key)
        found = ended(partner, submit(partner, DAY, DAY)["requestId"], "FAILED")
        assert "revised again and again" in found["errmsg"]
        assert kept_files(settings) == []


def test_what_another_process_has_taken_is_left_alone(
    settings: Settings, key: str, store: Store, registry: Engine
) -> None:
    store.fill(DAY, 40_000)
    store.close_days()

    def take(until: datetime) -> None:
        with registry.begin() as connection:
            connection.execute(update(Request).values(lease_owner="another", lease_until=until))

    with serving(settings, QUICK) as api:
        partner = Partner(api, key)
        with slot(settings.exhaust_folder, settings.exhaust_builders):  # so that its day is not built meanwhile
            id_ = submit(partner, DAY, DAY)["requestId"]
            wait_until("a process has it", lambda: read(partner, id_)["status"] == "PROCESSING")
            take(datetime.now(UTC) + timedelta(hours=1))
            time.sleep(0.5)
            left = read(partner, id_)
            time.sleep(2)
            assert read(partner, id_) == left
            assert left["status"] == "PROCESSING"
        time.sleep(0.5)
        assert not list(settings.exhaust_folder.glob("??/*/*.zip"))  # nobody waits for it any more
        take(datetime.now(UTC))
        ended(partner, id_)


def _answers(http: httpx.Client, url: str) -> bool:
    try:
        return http.get(url, timeout=5).status_code == 401
    except httpx.TransportError:
        return False


@contextmanager
def _forwarded(port: int, to_port: int) -> Iterator[None]:
    """Forward connections of one port to another."""
    listening = socket.create_server(("127.0.0.1", port))

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", to_port), timeout=30)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listening.close()
