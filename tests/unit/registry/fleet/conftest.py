"""The fleet's registry, in SQLite and in PostgreSQL."""

import pytest
from sqlalchemy import Engine

from midstream.registry.fleet.devices import Devices, Registration
from midstream.registry.fleet.models import Models, NewModel
from tests.support.registry import engine, settings

__all__ = ["engine", "settings"]


@pytest.fixture
def model(engine: Engine) -> NewModel:
    return Models(engine).create("hub-100", 10)


@pytest.fixture
def devices(engine: Engine) -> Devices:
    return Devices(engine)


@pytest.fixture
def device(devices: Devices, model: NewModel) -> str:
    return devices.register(Registration("SN-1", "1.0.0", model.hardware_key, mac="02:00:00:00:00:01")).id
