"""What a process remembers of devices: right within a second, or not said at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, func, select, update

from midstream.metrics import DEVICE_CACHE_ENTRIES, DEVICE_CACHE_MISSES
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.fleet import cache as cache_module
from midstream.registry.fleet.cache import FlagsCache
from midstream.registry.fleet.changes import KEPT, forget_changes
from midstream.registry.fleet.commands import Commands
from midstream.registry.fleet.configs import Configs
from midstream.registry.fleet.devices import Devices, InfoChange, Registered, Registration
from midstream.registry.fleet.errors import NotAllowedError, UnknownKeyError
from midstream.registry.fleet.files import FileInfo, Files
from midstream.registry.fleet.flags import Flags
from midstream.registry.fleet.licenses import Licenses
from midstream.registry.fleet.models import NewModel
from midstream.registry.fleet.tables import Change
from midstream.settings import Settings

RIGHT_S = 1.0


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[FlagsCache]:
    cache = FlagsCache(settings)
    await cache.start()
    try:
        yield cache
    finally:
        await cache.close()


@pytest.fixture
async def caches(settings: Settings, engine: Engine) -> AsyncIterator[tuple[FlagsCache, FlagsCache]]:
    """Those of two processes."""
    async with opened(settings) as one, opened(settings) as other:
        yield one, other


@pytest.fixture
def registered(devices: Devices, model: NewModel) -> Registered:
    return devices.register(Registration("SN-9", "1.0.0", model.hardware_key, cloud_id="c"))


async def flags_of(cache: FlagsCache, device: str) -> Flags:
    known = await cache.get(device)
    assert known is not None
    return known.flags


def misses() -> float:
    return DEVICE_CACHE_MISSES._value.get()


def file(percent: int = 100) -> FileInfo:
    return FileInfo(str(uuid4()), "f", "", "firmware", "1.3.4", "0" * 64, "", 1, percent, datetime.now(UTC))


class Fleet:
    """What can change of a device."""

    def __init__(self, engine: Engine, device: str) -> None:
        self.engine, self.device = engine, device
        self.file = file(0)

    def change(self, name: str) -> None:
        device = self.device
        changes: dict[str, Callable[[], Any]] = {
            "config": lambda: Configs(self.engine).set(device, "day", {}),
            "command": lambda: Commands(self.engine).give(device, "reboot", {}),
            "command taken": lambda: Commands(self.engine).report(device, "in_progress"),
            "licence": lambda: Licenses(self.engine).give(device, "d", "s", "add"),
            "licence reported": lambda: Licenses(self.engine).report(
                device, Licenses(self.engine).waiting(device)[0].id, "inuse"
            ),
            "info": lambda: Devices(self.engine).change_info(device, InfoChange(name="n")),
            "claim": lambda: Devices(self.engine).claim(device, {}),
            "revoke": lambda: Devices(self.engine).revoke(device),
            "file": lambda: Files(self.engine).add("hub-100", self.file),
            "rollout": lambda: Files(self.engine).set_rollout("hub-100", self.file.id, 100),
        }
        changes[name]()


CHANGES = [
    ("config", "config_version", 0, 1),
    ("command", "command", False, True),
    ("command taken", "command", True, False),
    ("licence", "new_licenses", False, True),
    ("licence reported", "new_licenses", True, False),
    ("info", "info_version", 1, 2),
    ("claim", "space_data_version", 0, 1),
    ("file", "latest_fw_version", None, None),
    ("rollout", "latest_fw_version", None, "1.3.4"),
    ("revoke", "revoked", False, True),
]


async def test_every_change_is_seen_by_every_process_within_a_second(
    caches: tuple[FlagsCache, FlagsCache], engine: Engine, device: str
) -> None:
    fleet = Fleet(engine, device)
    for change, flag, before, after in CHANGES:
        for cache in caches:
            assert getattr(await flags_of(cache, device), flag) == before, change
        await asyncio.to_thread(fleet.change, change)
        await asyncio.sleep(RIGHT_S)
        for cache in caches:
            assert getattr(await flags_of(cache, device), flag) == after, change


async def test_the_reply_has_every_flag(caches: tuple[FlagsCache, FlagsCache], device: str) -> None:
    known = await caches[0].get(device)
    assert known is not None
    assert known.reply == (
        b'{"success":true,"config_version":0,"command":false,"new_licenses":false,"info_version":1,'
        b'"latest_fw_version":null,"latest_fw_file_id":null,"space_data_version":0}'
    )


async def test_what_did_not_change_is_not_read_again(
    caches: tuple[FlagsCache, FlagsCache], engine: Engine, devices: Devices, model: NewModel, device: str
) -> None:
    cache = caches[0]
    other = devices.register(Registration("SN-2", "1.0.0", model.hardware_key, cloud_id="c")).id
    await cache.get(device)
    Fleet(engine, other).change("config")
    await asyncio.sleep(2 * RIGHT_S)
    before = misses()
    for _ in range(20):
        assert await cache.get(device) is not None
    assert misses() == before


async def test_what_was_read_before_a_change_was_seen_is_not_remembered(
    caches: tuple[FlagsCache, FlagsCache], engine: Engine, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = caches[0]
    read = cache_module.read_flags

    def slowly(*arguments: Any) -> Flags | None:
        found = read(*arguments)
        Fleet(engine, device).change("config")
        time.sleep(0.8)  # another process's poll; in a thread, so that ours goes on
        return found

    monkeypatch.setattr(cache_module, "read_flags", slowly)
    monkeypatch.setattr(cache._reads, "_instant", None)
    assert (await flags_of(cache, device)).config_version == 0
    monkeypatch.setattr(cache_module, "read_flags", read)
    assert (await flags_of(cache, device)).config_version == 1


async def test_a_number_that_becomes_visible_late_is_seen(
    caches: tuple[FlagsCache, FlagsCache], engine: Engine, device: str, model: NewModel
) -> None:
    """Numbers are not given in the order of commits: this one was given before all that were seen."""
    cache = caches[0]
    await asyncio.to_thread(Fleet(engine, device).change, "config")
    with engine.begin() as connection:  # leave a gap below
        connection.execute(update(Change).values(number=Change.number + 5))
    await asyncio.sleep(RIGHT_S)
    assert (await flags_of(cache, device)).config_version == 1
    from midstream.registry.fleet.tables import Device

    with engine.begin() as connection:
        connection.execute(update(Device).where(Device.id == device).values(config_version=7))
        connection.execute(Change.__table__.insert().values(number=3, device_id=device, at=datetime.now(UTC)))
    await asyncio.sleep(RIGHT_S)
    assert (await flags_of(cache, device)).config_version == 7


async def test_while_changes_cannot_be_seen_nothing_is_believed(
    caches: tuple[FlagsCache, FlagsCache], engine: Engine, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = caches[0]
    await cache.get(device)

    def away(*_: Any) -> Any:
        raise RegistryUnavailable("away")

    monkeypatch.setattr(cache_module, "read_changes", away)
    await asyncio.sleep(RIGHT_S + 0.1)
    Fleet(engine, device).change("config")
    assert (await flags_of(cache, device)).config_version == 1  # read through, at once
    Fleet(engine, device).change("config")
    assert (await flags_of(cache, device)).config_version == 2
    monkeypatch.setattr(cache_module, "read_flags", away)
    with pytest.raises(RegistryUnavailable):
        await cache.get(device)


async def test_who_calls(
    caches: tuple[FlagsCache, FlagsCache], devices: Devices, device: str, registered: Registered
) -> None:
    cache = caches[0]
    known = await cache.authenticate(registered.id, registered.access_key)
    assert known.flags.info_version == 1
    for id_ in (device, "nobody", str(uuid4()), "\u0000"):
        with pytest.raises(NotAllowedError):
            await cache.authenticate(id_, registered.access_key)
    for key in ("", "nobody's", "x" * 300, registered.access_key + " ", f"Bearer {registered.access_key}"):
        for id_ in (registered.id, "nobody"):
            with pytest.raises(UnknownKeyError):
                await cache.authenticate(id_, key)
    devices.revoke(registered.id)
    await asyncio.sleep(RIGHT_S)
    with pytest.raises(NotAllowedError, match="revoked"):
        await cache.authenticate(registered.id, registered.access_key)


async def test_without_its_registry_nobody_is_told_that_a_key_is_bad(settings: Settings) -> None:
    away = settings.model_copy(update={"registry": "postgresql+psycopg://nobody@127.0.0.1:1/none"})
    async with opened(away) as cache:
        for key in ("x", "y"):
            with pytest.raises(RegistryUnavailable):
                await cache.authenticate(str(uuid4()), key)


async def test_a_call_is_kept_as_the_moment_it_was_last_seen(
    settings: Settings, devices: Devices, registered: Registered
) -> None:
    before = devices.get(registered.id).last_seen_at
    async with opened(settings) as cache:
        await cache.authenticate(registered.id, registered.access_key)
        await asyncio.sleep(1.5)
        seen = devices.get(registered.id).last_seen_at
        assert before is not None
        assert seen is not None
        assert seen > before
        await cache.authenticate(registered.id, registered.access_key)
    last = devices.get(registered.id).last_seen_at
    assert last is not None
    assert last > seen


async def test_it_is_bounded(settings: Settings, engine: Engine, devices: Devices, model: NewModel) -> None:
    ids = [devices.register(Registration(f"B{n}", "1.0.0", model.hardware_key, mac="m")).id for n in range(103)]
    before = DEVICE_CACHE_ENTRIES._value.get()
    async with opened(settings.model_copy(update={"device_cache_entries": 100})) as cache:
        for id_ in ids:
            await cache.get(id_)
        assert DEVICE_CACHE_ENTRIES._value.get() - before == 100
        missed = misses()
        await cache.get(ids[-1])
        assert misses() == missed
        await cache.get(ids[0])
        assert misses() == missed + 1
    assert DEVICE_CACHE_ENTRIES._value.get() == before


def test_old_changes_are_deleted_and_numbers_never_given_again(engine: Engine, device: str) -> None:
    fleet = Fleet(engine, device)
    for _ in range(3):
        fleet.change("config")
    with engine.begin() as connection:
        connection.execute(update(Change).values(at=datetime.now(UTC) - KEPT - timedelta(seconds=1)))
        highest = connection.scalar(select(func.max(Change.number)))
    forget_changes(engine)
    fleet.change("config")
    with engine.connect() as connection:
        (number,) = connection.scalars(select(Change.number))
    assert highest is not None
    assert number > highest
