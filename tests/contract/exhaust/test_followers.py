"""Who waits for a day, who builds it, and what happens when either goes away."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import Engine

from midstream.clickhouse.migrate import migrate as migrate_clickhouse
from midstream.registry.exhaust.licences import Licences
from midstream.settings import Settings
from serve.exhaust.days.shelf import slot
from tests.contract.engine.conftest import StartEngine
from tests.contract.exhaust.archive import Archive
from tests.contract.exhaust.conftest import HASH, Partner, Store, day_before, serving
from tests.support.waiting import wait_until

DAY, BEFORE = day_before(1), day_before(2)


def builders() -> list[psutil.Process]:
    """The builders of this process's servers."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "serve.exhaust.days.builder" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def all_slots_taken(settings: Settings) -> Iterator[None]:
    """No day can be built meanwhile; builders wait."""
    with slot(settings.exhaust_folder, 1) as ours:
        assert ours
        yield


class Reader:
    """Reads a download in a thread."""

    def __init__(self, partner: Partner, *days: object) -> None:
        self.partner = partner
        self.path = "/".join([partner.path, *(str(day) for day in days)])
        self.content = bytearray()
        self.error: Exception | None = None
        self.leave = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            with (
                httpx.Client(base_url=self.partner.api.url, timeout=60) as client,
                client.stream("GET", self.path, headers=self.partner.bearer) as reply,
            ):
                assert reply.status_code == 200
                for chunk in reply.iter_raw():
                    self.content += chunk
                    if self.leave.is_set():
                        return
        except httpx.HTTPError as error:
            self.error = error

    def wait_begun(self) -> Reader:
        wait_until("the first bytes", lambda: len(self.content) > 0)
        return self

    def result(self) -> bytes:
        self.thread.join(30)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        return bytes(self.content)


@pytest.fixture
def filled(store: Store) -> Store:
    for day in (BEFORE, DAY):
        store.fill(day, 3_000)
    store.close_days()
    return store


def test_the_first_bytes_come_before_the_day_is_built(partner: Partner, filled: Store) -> None:
    with all_slots_taken(partner.api.settings):
        began = time.monotonic()
        reader = Reader(partner, DAY, DAY).wait_begun()
        assert time.monotonic() - began < 1.0
        assert bytes(reader.content).startswith(b"PK\x03\x04")
    assert Archive(reader.result()).lines(DAY)


def test_two_who_ask_at_once_share_a_builder(partner: Partner, filled: Store) -> None:
    with all_slots_taken(partner.api.settings):
        readers = [Reader(partner, BEFORE, DAY).wait_begun() for _ in range(3)]
        assert len(builders()) == 1
    assert len({reader.result() for reader in readers}) == 1


def test_two_processes_share_a_builder(make_settings: Callable[..., Settings], partner: Partner, filled: Store) -> None:
    with serving(make_settings()) as other, all_slots_taken(partner.api.settings):
        first = Reader(partner, DAY, DAY).wait_begun()
        second = Reader(Partner(other, partner.key), DAY, DAY).wait_begun()
        wait_until("one builder", lambda: len(builders()) == 1, 60)
        time.sleep(0.5)
        assert len(builders()) == 1
    # The slots are free again, and the other api is gone: its reader is broken off, this one's goes on.
    assert Archive(first.result()).lines(DAY)
    with pytest.raises(httpx.RemoteProtocolError):
        second.result()


def test_when_nobody_waits_the_builder_ends(partner: Partner, filled: Store) -> None:
    settings = partner.api.settings
    with all_slots_taken(settings):
        with httpx.Client(base_url=partner.api.url, timeout=20) as client:
            request = client.build_request("GET", f"{partner.path}/{DAY}/{DAY}", headers=partner.bearer)
            reply = client.send(request, stream=True)
            next(reply.iter_raw())
            wait_until("a builder", builders)
            reply.close()
        wait_until("no builder", lambda: not builders(), 5)
    wait_until("no part is left", lambda: not list(settings.exhaust_folder.glob("??/*/*.part")), 5)
    assert partner.archive(DAY, DAY).lines(DAY)


def test_one_leaves_and_the_other_gets_all(partner: Partner, filled: Store) -> None:
    with all_slots_taken(partner.api.settings):
        stays = Reader(partner, DAY, DAY).wait_begun()
        with httpx.Client(base_url=partner.api.url, timeout=20) as client:
            request = client.build_request("GET", f"{partner.path}/{DAY}/{DAY}", headers=partner.bearer)
            client.send(request, stream=True).close()
        time.sleep(1.2)
        assert len(builders()) == 1
    assert Archive(stays.result()).lines(DAY)


def test_a_builder_that_is_killed_breaks_the_download(partner: Partner, filled: Store) -> None:
    with all_slots_taken(partner.api.settings):
        reader = Reader(partner, DAY, DAY).wait_begun()
        (builder,) = wait_until("a builder", builders)
        builder.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            reader.result()
    assert partner.archive(DAY, DAY).lines(DAY)


def test_a_builder_killed_in_another_process_is_replaced(
    make_settings: Callable[..., Settings], partner: Partner, filled: Store
) -> None:
    with serving(make_settings()) as other:
        with all_slots_taken(partner.api.settings):
            first = Reader(Partner(other, partner.key), DAY, DAY).wait_begun()
            (builder,) = wait_until("a builder", builders)
            second = Reader(partner, DAY, DAY).wait_begun()
            time.sleep(0.3)
            builder.kill()
            with pytest.raises(httpx.RemoteProtocolError):
                first.result()
            wait_until("another builder", builders)
        assert Archive(second.result()).lines(DAY)


def test_what_a_killed_builder_left_is_not_taken_for_whole(partner: Partner, filled: Store) -> None:
    whole = partner.archive(DAY, DAY).content
    (facts,) = partner.api.settings.exhaust_folder.glob(f"??/*/{DAY}.0.json")
    data = facts.with_suffix(".zip")
    facts.unlink()
    data.write_bytes(data.read_bytes()[:1000])
    facts.with_suffix(".part").write_bytes(b"rubbish")
    facts.with_suffix(".lock").write_bytes(b"")
    assert partner.archive(DAY, DAY).content == whole
    facts.write_text(facts.read_text()[:50])
    assert partner.archive(DAY, DAY).content == whole
    data.write_bytes(data.read_bytes()[:1000])
    assert partner.archive(DAY, DAY).content == whole


def test_a_stop_breaks_downloads_off(partner: Partner, filled: Store) -> None:
    with all_slots_taken(partner.api.settings):
        reader = Reader(partner, DAY, DAY).wait_begun()
        served = partner.api.served
        assert served is not None
        partner.api.call(served.stopping.set)
        with pytest.raises(httpx.RemoteProtocolError):
            reader.result()


def test_the_engine_dies_in_the_middle(
    start_engine: StartEngine,
    make_settings: Callable[..., Settings],
    registry: Engine,
) -> None:
    from midstream.clickhouse.client import open_client

    engine = start_engine().wait_ready()
    settings = make_settings(clickhouse=f"{engine.url}/midstream")
    migrate_clickhouse(settings)
    clickhouse = open_client(settings)
    store = Store(clickhouse)
    store.fill(DAY, 60_000)
    store.close_days()
    key = Licences(registry).create("other", [("D001", HASH)])
    with serving(settings) as api:
        partner = Partner(api, key)
        reader = Reader(partner, DAY, DAY)
        wait_until("the middle", lambda: len(reader.content) > 200_000)
        engine.stop(signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            reader.result()
        refused = partner.post(DAY, DAY)
        assert (refused.status_code, refused.json()["params"]["err"]) == (503, "INTERNAL_ERROR")
        assert "retry-after" in refused.headers
        start_engine(engine.home, engine.port).wait_ready()
        assert len(partner.archive(DAY, DAY).lines(DAY)) == 60_000
    clickhouse.close()


def test_a_slow_client_is_waited_for_but_not_for_ever(partner: Partner, filled: Store) -> None:
    import asyncio

    from serve.exhaust.download.sending import Download, Sent

    async def stuck(_: Any) -> None:
        await asyncio.sleep(60)

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def chunks() -> Any:
        yield b"x"

    ended: list[Sent] = []

    async def download() -> None:
        from contextlib import AsyncExitStack

        reply = Download(
            chunks(), AsyncExitStack(), Sent(), asyncio.Event(), ended.append, status_code=200, headers={}, stall_s=0.05
        )
        begun = False

        async def send(message: Any) -> None:
            nonlocal begun
            if begun:
                await stuck(message)
            begun = True

        await reply({"type": "http"}, receive, send)

    asyncio.run(asyncio.wait_for(download(), 5))
    assert [(sent.whole, sent.bytes) for sent in ended] == [(False, 0)]


def test_downloads_are_logged(partner: Partner, filled: Store) -> None:
    reply = partner.post(BEFORE, DAY, query="?eid=INTERACT", headers={"user-agent": "x"})
    partner.get(BEFORE, DAY, query="?eid=INTERACT", headers={"range": "bytes=5-9"})
    partner.manifest(BEFORE, DAY, "?eid=INTERACT")
    with all_slots_taken(partner.api.settings):
        reader = Reader(partner, day_before(3), DAY).wait_begun()
        served = partner.api.served
        assert served is not None
        partner.api.call(served.stopping.set)
        reader.thread.join(10)
    query = (
        "SELECT what, method, status, first_byte, sent_bytes, complete, licence, dataset, resource, first_day, "
        "last_day, format, eids, channels FROM exhaust_downloads ORDER BY at, what"
    )
    wait_until("four rows", lambda: len(filled.clickhouse.rows(query)) == 4)
    rows = filled.clickhouse.rows(query)
    about = ("partner", "D001", HASH, BEFORE, DAY, "jsonl", ["INTERACT"], [])
    assert rows[0] == ("archive", "POST", 200, 0, len(reply.content), True, *about)
    assert rows[1] == ("archive", "GET", 206, 5, 5, True, *about)
    assert rows[2][:3] == ("manifest", "GET", 200)
    assert (rows[3][0], rows[3][5], rows[3][4]) == ("archive", False, len(reader.content))
