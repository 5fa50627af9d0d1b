"""What devices fetch: configurations, commands, licences."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from midstream.registry.fleet.commands import Commands
from midstream.registry.fleet.configs import Configs
from midstream.registry.fleet.devices import Devices, Registration
from midstream.registry.fleet.errors import FleetError, NotAllowedError, NotThereError
from midstream.registry.fleet.licenses import Licenses
from midstream.registry.fleet.models import NewModel


@pytest.fixture
def configs(engine: Engine) -> Configs:
    return Configs(engine)


@pytest.fixture
def commands(engine: Engine) -> Commands:
    return Commands(engine)


@pytest.fixture
def licenses(engine: Engine) -> Licenses:
    return Licenses(engine)


@pytest.fixture
def other(devices: Devices, model: NewModel) -> str:
    return devices.register(Registration("SN-2", "1.0.0", model.hardware_key, cloud_id="c")).id


def refused(commands: Commands, device: str, status: str, command_id: str | None = None) -> bool:
    try:
        commands.report(device, status, command_id=command_id)
    except FleetError:
        return True
    return False


def test_a_configuration_moves_by_the_operator_alone(configs: Configs, devices: Devices, device: str) -> None:
    assert (configs.get(device).version, configs.get(device).content) == (0, {})
    assert [configs.set(device, "day", {"volume": n}) for n in (1, 2)] == [1, 2]
    config = configs.get(device)
    assert (config.name, config.version, config.content) == ("day", 2, {"volume": 2})
    assert config.at is not None
    configs.report(device, 2, {"volume": 3})
    configs.report(device, 2, {"volume": 4})
    assert (configs.get(device).version, configs.get(device).content) == (2, {"volume": 2})
    assert devices.get(device).applied_version == 2


@pytest.mark.parametrize("version", [-1, 0, 1, 3])
def test_another_version_than_the_current_is_refused(configs: Configs, device: str, version: int) -> None:
    configs.set(device, "a", {})
    configs.set(device, "b", {})
    with pytest.raises(FleetError, match="current"):
        configs.report(device, version, {})


def test_versions_of_configurations_set_at_once_have_no_gap(configs: Configs, device: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        versions = list(threads.map(lambda n: configs.set(device, f"c{n}", {"n": n}), range(24)))
    assert sorted(versions) == list(range(1, 25))


def test_commands_are_first_in_first_out(commands: Commands, device: str) -> None:
    given = [commands.give(device, f"c{n}", {"n": n}).id for n in range(3)]
    for id_ in given:
        oldest = commands.oldest(device)
        assert oldest is not None
        assert oldest.id == id_ == getattr(commands.oldest(device), "id", None)  # to look changes nothing
        commands.report(device, "in_progress")
        assert getattr(commands.oldest(device), "status", None) == "in_progress"
        commands.report(device, "done", "well", id_)
    assert commands.oldest(device) is None
    assert [(one.name, one.status, one.message) for one in commands.history(device)] == [
        (f"c{n}", "done", "well") for n in (2, 1, 0)
    ]


@pytest.mark.parametrize(
    ("steps", "allowed"),
    [
        (["in_progress", "done"], True),
        (["in_progress", "failed"], True),
        (["done"], True),
        (["failed"], True),
        (["in_progress", "in_progress"], False),
        (["done", "done"], False),
        (["done", "failed"], False),
        (["failed", "in_progress"], False),
        (["pending"], False),
        (["finished"], False),
        ([""], False),
    ],
)
def test_which_status_may_become_which(commands: Commands, device: str, steps: list[str], allowed: bool) -> None:
    id_ = commands.give(device, "c", {}).id
    for step in steps[:-1]:
        commands.report(device, step, command_id=id_)
    assert refused(commands, device, steps[-1], id_) != allowed


def test_of_many_equal_reports_one_moves_the_command(commands: Commands, device: str) -> None:
    id_ = commands.give(device, "c", {}).id
    for status in ("in_progress", "done"):
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _, status=status: refused(commands, device, status, id_), range(16)))
        assert answers.count(False) == 1


def test_another_device_has_no_part_in_a_command(commands: Commands, device: str, other: str) -> None:
    id_ = commands.give(device, "c", {}).id
    with pytest.raises(NotThereError):
        commands.report(other, "done", command_id=id_)
    assert commands.oldest(other) is None
    assert refused(commands, other, "done")
    with pytest.raises(NotThereError):
        commands.give("nobody", "c", {})


def test_a_licence_is_listed_until_it_was_reported(licenses: Licenses, device: str) -> None:
    expiry = datetime(2030, 1, 1, tzinfo=UTC)
    first, second = (licenses.give(device, "data", "sig", action, expiry) for action in ("add", "remove"))
    assert [one.id for one in licenses.waiting(device)] == [first.id, second.id]
    assert licenses.waiting(device)[0].expires_at == expiry
    licenses.report(device, first.id, "error", "no room")
    assert [one.id for one in licenses.waiting(device)] == [second.id]
    licenses.report(device, first.id, "inuse")
    licenses.report(device, first.id, "inuse")
    assert [(step.state, step.error) for step in licenses.history(device, first.id)] == [
        ("error", "no room"),
        ("inuse", ""),
    ]
    assert [(one.id, one.state) for one in licenses.list_all(device)] == [(second.id, None), (first.id, "inuse")]


def test_what_is_refused_of_licences(licenses: Licenses, device: str, other: str) -> None:
    license_ = licenses.give(device, "d", "s", "update")
    with pytest.raises(NotAllowedError, match="Only allowed to set: inuse/removed/error"):
        licenses.report(device, license_.id, "new")
    with pytest.raises(NotThereError):
        licenses.report(other, license_.id, "inuse")
    with pytest.raises(NotThereError):
        licenses.history(other, license_.id)
    with pytest.raises(FleetError, match="action"):
        licenses.give(device, "d", "s", "keep")
    with pytest.raises(NotThereError):
        licenses.give("nobody", "d", "s", "add")
    assert len(licenses.waiting(device)) == 1
