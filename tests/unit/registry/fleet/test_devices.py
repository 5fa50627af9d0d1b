from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy import Engine, update

from midstream.registry.fleet.devices import INFO_UPDATES_AN_HOUR, Devices, InfoChange, Registration
from midstream.registry.fleet.errors import FleetError, NotThereError, TooOftenError
from midstream.registry.fleet.models import Models, NewModel
from midstream.registry.fleet.tables import Device


def registration(model: NewModel, sn: str = "SN-1") -> Registration:
    return Registration(sn, "1.2.3", model.hardware_key, cloud_id="c", name="Hall", details={"port": 4})


def test_a_device_registers_and_its_key_is_kept_as_a_hash(engine: Engine, devices: Devices, model: NewModel) -> None:
    new = devices.register(registration(model))
    info = devices.get(new.id)
    assert (info.sn, info.firmware_version, info.cloud_id, info.name) == ("SN-1", "1.2.3", "c", "Hall")
    assert (info.model, info.details, info.interval_s) == ("hub-100", {"port": 4}, 10)
    assert (info.info_version, info.config_version, info.space_version, info.revoked_at) == (1, 0, 0, None)
    assert new.access_key not in repr(new)
    with engine.connect() as connection:
        everything = repr(connection.exec_driver_sql("SELECT * FROM devices, device_models").all())
    assert new.access_key not in everything
    assert model.hardware_key not in everything


def test_a_serial_number_registers_once_in_a_model(engine: Engine, devices: Devices, model: NewModel) -> None:
    first = devices.register(registration(model))
    devices.revoke(first.id)  # which shall hold
    with pytest.raises(FleetError, match="already registered"):
        devices.register(registration(model))
    other = Models(engine).create("hub-200", 10)
    assert devices.register(registration(other)).id


def test_of_many_that_register_as_one_one_does(devices: Devices, model: NewModel) -> None:
    together, outcomes = Barrier(8), []

    def register() -> None:
        together.wait()
        try:
            outcomes.append(devices.register(registration(model)).id)
        except FleetError:
            outcomes.append("")

    threads = [Thread(target=register) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(bool, outcomes)) == [False] * 7 + [True]


@pytest.mark.parametrize("key", ["", "nobody's", "\ud800"])
def test_an_unknown_hardware_key(devices: Devices, model: NewModel, key: str) -> None:
    with pytest.raises(NotThereError):
        devices.register(replace(registration(model), hardware_key=key))


def test_a_renewed_hardware_key_ends_the_old_one(engine: Engine, devices: Devices, model: NewModel) -> None:
    renewed = Models(engine).renew_key(model.name)
    with pytest.raises(NotThereError):
        devices.register(registration(model))
    assert devices.register(registration(renewed)).id


def test_a_parent_has_to_be_there(devices: Devices, model: NewModel, device: str) -> None:
    with pytest.raises(FleetError, match="parent_id"):
        devices.register(replace(registration(model, "SN-2"), parent_id="nobody"))
    child = devices.register(replace(registration(model, "SN-2"), parent_id=device)).id
    assert devices.get(child).parent_id == device


def test_info_changes_what_was_said_and_counts_its_versions(devices: Devices, device: str) -> None:
    assert devices.change_info(device, InfoChange(firmware_version="2.0.0")) == 2
    assert devices.change_info(device, InfoChange(name="Stage", sub_model="b", details={"a": [1]})) == 3
    info = devices.get(device)
    assert (info.firmware_version, info.name, info.sub_model, info.details) == ("2.0.0", "Stage", "b", {"a": [1]})
    assert info.info_version == 3


def test_the_eleventh_update_in_the_hour_is_refused_and_an_hour_later_is_not(
    engine: Engine, devices: Devices, device: str
) -> None:
    for _ in range(INFO_UPDATES_AN_HOUR):
        devices.change_info(device, InfoChange(name="x"))
    with pytest.raises(TooOftenError):
        devices.change_info(device, InfoChange(name="y"))
    assert devices.get(device).name == "x"
    ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    with engine.begin() as connection:
        connection.execute(update(Device).values(info_updates=[ago] + [datetime.now(UTC).isoformat()] * 9))
    devices.change_info(device, InfoChange(name="y"))
    assert devices.get(device).name == "y"


def test_a_claim_counts_its_versions(devices: Devices, device: str) -> None:
    assert [devices.claim(device, {"room": n}) for n in (1, 2)] == [1, 2]
    info = devices.get(device)
    assert (info.space, info.space_version) == ({"room": 2}, 2)


def test_revoking_twice_is_as_once(devices: Devices, device: str) -> None:
    devices.revoke(device)
    first = devices.get(device).revoked_at
    devices.revoke(device)
    assert devices.get(device).revoked_at == first is not None


def test_last_seen_moves_forward_alone(devices: Devices, device: str) -> None:
    noon = datetime(2100, 1, 1, 12, tzinfo=UTC)
    devices.touch({device: noon, "nobody": noon})
    devices.touch({device: noon - timedelta(seconds=1)})
    devices.touch({})
    assert devices.get(device).last_seen_at == noon


def test_pages(engine: Engine, devices: Devices, model: NewModel) -> None:
    ids = sorted(devices.register(registration(model, f"A%{n}")).id for n in range(5))
    other = Models(engine).create("hub-200", 10)
    alone = devices.register(replace(registration(other, "B_1"), name="100% loud")).id
    assert [one.id for one in devices.page(limit=3, model="hub-100")] == ids[:3]
    assert [one.id for one in devices.page(limit=3, model="hub-100", after=ids[2])] == ids[3:]
    assert [one.id for one in devices.page(limit=9, text="% l")] == [alone]
    assert [one.id for one in devices.page(limit=9, text="B_")] == [alone]
    assert devices.page(limit=9, text="_%") == []
    assert len(devices.page(limit=9, text="A%")) == 5


@pytest.mark.parametrize("call", ["get", "claim", "revoke", "change_info"])
def test_what_is_not_there(devices: Devices, call: str) -> None:
    arguments = {"claim": ({},), "change_info": (InfoChange(name="x"),)}.get(call, ())
    with pytest.raises(NotThereError):
        getattr(devices, call)("nobody", *arguments)
