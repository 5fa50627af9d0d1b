from __future__ import annotations

import json
from pathlib import Path

import pytest

from midstream.registry.engine import open_engine
from midstream.registry.fleet.devices import Devices, Registration
from midstream.settings import load_settings

from .conftest import Run


def test_a_created_models_key_registers_its_devices(run: Run, home: Path) -> None:
    result = run("model", "create", "hub-100", "--interval-s", "10")
    assert result.exit_code == 0
    assert result.stderr == ""
    (key,) = result.stdout.splitlines()
    engine = open_engine(load_settings())
    device = Devices(engine).register(Registration("SN-1", "1.0.0", key, mac="m"))
    assert Devices(engine).get(device.id).interval_s == 10
    engine.dispose()


def test_lists_show_no_key(run: Run) -> None:
    made = json.loads(run("model", "create", "hub-200", "--json").stdout)
    assert made["name"] == "hub-200"
    run("model", "create", "hub-100", "--interval-s", "5")
    (titles, *rows) = run("model", "list").stdout.splitlines()
    assert titles.split() == ["NAME", "INTERVAL", "CREATED"]
    assert [row.split()[:3] for row in rows] == [["hub-100", "5", "s"], ["hub-200", "60", "s"]]
    listed = run("model", "list", "--json").stdout
    assert [(one["name"], one["interval_s"]) for one in json.loads(listed)] == [("hub-100", 5), ("hub-200", 60)]
    assert made["hardware_key"] not in listed


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("hub-100",), 1, "already"),
        (("a b",), 1, "name"),
        (("x", "--interval-s", "99999999"), 1, "interval"),
        (("x", "--interval-s", "0"), 2, "interval"),
        ((), 2, "NAME"),
    ],
)
def test_what_is_refused(run: Run, arguments: tuple[str, ...], code: int, says: str) -> None:
    run("model", "create", "hub-100")
    result = run("model", "create", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr
