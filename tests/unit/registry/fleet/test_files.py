from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from midstream.registry.fleet.devices import Devices, Registration
from midstream.registry.fleet.errors import FleetError, NotThereError
from midstream.registry.fleet.files import FileInfo, Files, is_offered
from midstream.registry.fleet.flags import read_flags
from midstream.registry.fleet.models import Models, NewModel


def file(version: str, percent: int = 100, file_type: str = "firmware") -> FileInfo:
    return FileInfo(str(uuid4()), "image.bin", "", file_type, version, "0" * 64, "sig", 3, percent, datetime.now(UTC))


@pytest.fixture
def files(engine: Engine, model: NewModel) -> Files:
    return Files(engine)


def latest(engine: Engine, device: str) -> tuple[str | None, str | None]:
    flags = read_flags(engine, device)
    assert flags is not None
    return flags.latest_fw_version, flags.latest_fw_file_id


def test_the_newest_is_so_by_its_version_whatever_came_last(engine: Engine, files: Files, device: str) -> None:
    assert latest(engine, device) == (None, None)
    added = {version: file(version) for version in ("1.9.0", "1.10.0", "1.10.0-rc.1", "1.2.3")}
    for one in added.values():
        files.add("hub-100", one)
    assert latest(engine, device) == ("1.10.0", added["1.10.0"].id)
    files.add("hub-100", file("9", file_type="manual"))
    assert latest(engine, device) == ("1.10.0", added["1.10.0"].id)
    assert [one.version for one in files.of_device(device)] == ["9", "1.2.3", "1.10.0-rc.1", "1.10.0", "1.9.0"]
    assert files.get(device, added["1.9.0"].id) == added["1.9.0"]


def test_a_file_is_for_its_model_alone(engine: Engine, files: Files, device: str) -> None:
    Models(engine).create("hub-200", 10)
    other = file("2.0.0")
    files.add("hub-200", other)
    assert latest(engine, device) == (None, None)
    assert files.of_device(device) == []
    with pytest.raises(NotThereError):
        files.get(device, other.id)


def test_a_share_is_stable_and_grows(engine: Engine, files: Files, devices: Devices, model: NewModel) -> None:
    old, new = file("1.0.0"), file("2.0.0", 0)
    files.add("hub-100", old)
    files.add("hub-100", new)
    ids = [devices.register(Registration(f"R{n}", "1.0.0", model.hardware_key, mac="m")).id for n in range(40)]
    had: set[str] = set()
    for percent in (0, 10, 50, 100):
        files.set_rollout("hub-100", new.id, percent)
        have = {id_ for id_ in ids if latest(engine, id_) == ("2.0.0", new.id)}
        assert all(latest(engine, id_) == ("1.0.0", old.id) for id_ in set(ids) - have)
        assert have >= had
        had = have
    assert had == set(ids)


def test_a_share_is_about_what_it_says() -> None:
    one = file("1.0.0", 20)
    offered = sum(is_offered(one, str(uuid4())) for _ in range(20_000))
    assert 3_600 < offered < 4_400


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (file("1"), "semantic version"),
        (file("v1.0.0"), "semantic version"),
        (file("1.0.0", 101), "rollout_percent"),
        (file("1.0.0", -1), "rollout_percent"),
    ],
)
def test_what_is_refused(files: Files, wanted: FileInfo, says: str) -> None:
    with pytest.raises(FleetError, match=says):
        files.add("hub-100", wanted)
    assert files.list_all("hub-100") == []


def test_a_version_is_there_once(files: Files) -> None:
    def add(_: int) -> bool:
        try:
            files.add("hub-100", file("1.0.0"))
        except FleetError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(add, range(4))) == 1
    assert len(files.list_all("hub-100")) == 1


def test_what_is_not_there(files: Files) -> None:
    with pytest.raises(NotThereError):
        files.add("nobody", file("1.0.0"))
    with pytest.raises(NotThereError):
        files.list_all("nobody")
    with pytest.raises(NotThereError):
        files.set_rollout("hub-100", "nothing", 5)
