from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from midstream.registry.errors import RegistryUnavailable
from midstream.registry.fleet.devices import Devices, Registration
from midstream.registry.fleet.models import Models, NewModel
from midstream.registry.fleet.seen import Seen, count_seen, is_there

NOW = datetime.now(UTC) + timedelta(days=15)  # a device is seen when it registers, and that is long ago by then
DAY = timedelta(days=1)


def test_silent_is_who_was_there_within_a_day(engine: Engine, devices: Devices, model: NewModel) -> None:
    slow = Models(engine).create("meter", 3_600)  # beside one of ten seconds
    ago = {
        (model, "a"): 5, (model, "b"): 22, (model, "c"): 23, (model, "d"): 86_399, (model, "e"): 86_401,
        (slow, "f"): 7_200, (slow, "g"): 7_203, (slow, "h"): 200_000,
    }  # fmt: skip
    ids = {sn: devices.register(Registration(sn, "1", of.hardware_key)).id for of, sn in ago}
    devices.register(Registration("never", "1", model.hardware_key))
    devices.touch({ids[sn]: NOW - timedelta(seconds=seconds) for (_, sn), seconds in ago.items()})
    assert count_seen(engine, NOW, DAY) == Seen(reporting=3, silent=3)  # a, b, f; c, d, g
    devices.revoke(ids["a"])
    devices.revoke(ids["d"])
    assert count_seen(engine, NOW, DAY) == Seen(reporting=2, silent=2)


def test_an_interval_longer_than_a_day_is_waited_for(engine: Engine, devices: Devices) -> None:
    weekly = Models(engine).create("weekly", 7 * 86_400)
    id_ = devices.register(Registration("w", "1", weekly.hardware_key)).id
    devices.touch({id_: NOW - timedelta(days=8)})
    assert count_seen(engine, NOW, DAY) == Seen(reporting=1, silent=0)


def test_a_fleet_without_devices(engine: Engine) -> None:
    assert count_seen(engine, NOW, DAY) == Seen(0, 0)
    is_there(engine)


def test_a_registry_without_tables_is_none(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE device_models RENAME TO gone")
    for ask in (is_there, lambda one: count_seen(one, NOW, DAY)):
        with pytest.raises(RegistryUnavailable):
            ask(engine)
