from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local import broker
from deploy.local.errors import LocalError
from deploy.local.home import Home, open_home
from deploy.local.waiting import Flag, Waiter
from midstream.settings import Settings
from midstream.topics import ALL

META = "#\n#Sat Nov 21\nnode.id=1\nversion=1\ncluster.id=abc\ndirectory.id=def\n"


class Formatter(Waiter):
    """Takes the place of Kafka's StorageTool."""

    def __init__(self, *, cut_off: bool = False) -> None:
        super().__init__(Flag())
        self.runs = 0
        self.cut_off = cut_off

    def run_command(self, command: list[str], timeout_s: float, folder: Path | None = None) -> None:
        assert folder is not None
        self.runs += 1
        data = folder / "data.new"
        data.mkdir()
        (data / "bootstrap.checkpoint").touch()
        if self.cut_off:
            raise LocalError("cut off")
        (data / "meta.properties").write_text(META)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home, with a comma")


def properties(**changes: object) -> dict[str, str]:
    lines = broker.server_properties(Settings.model_validate(changes), "data").splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_it_listens_on_this_machine_only_on_the_ports_of_the_settings() -> None:
    found = properties(local_kafka_port=1092, local_kafka_controller_port=1093)
    assert found["listeners"] == "BROKER://127.0.0.1:1092,CONTROLLER://127.0.0.1:1093"
    assert found["advertised.listeners"] == "BROKER://127.0.0.1:1092"


def test_it_takes_the_largest_record_of_every_topic() -> None:
    limit = int(properties()["message.max.bytes"])
    assert all(int(topic.broker_config()["max.message.bytes"]) <= limit for topic in ALL)


def test_it_is_formatted_once(home: Home) -> None:
    formatter = Formatter()
    for _ in range(2):
        broker.format_storage(Settings(), home, pytest.fail, formatter)
    assert formatter.runs == 1
    assert broker.is_formatted(home.kafka / "data")


def test_a_formatting_that_was_cut_off_is_done_anew(home: Home) -> None:
    with pytest.raises(LocalError):
        broker.format_storage(Settings(), home, pytest.fail, Formatter(cut_off=True))
    assert not broker.is_formatted(home.kafka / "data")
    broker.format_storage(Settings(), home, pytest.fail, Formatter())
    assert broker.is_formatted(home.kafka / "data")


@pytest.mark.parametrize("meta", [None, "", "version=1\n"])
def test_a_half_formatted_folder_is_formatted_anew_and_mentioned(home: Home, meta: str | None) -> None:
    data = home.kafka / "data"
    (data / "__cluster_metadata-0").mkdir(parents=True)
    if meta is not None:
        (data / "meta.properties").write_text(meta)
    said: list[str] = []
    broker.format_storage(Settings(), home, said.append, Formatter())
    assert "formatted by half" in said[0]
    assert broker.is_formatted(data)


def test_a_folder_with_records_is_never_formatted(home: Home) -> None:
    (home.kafka / "data" / "telemetry.raw-0").mkdir(parents=True)
    with pytest.raises(LocalError, match=r"meta\.properties is missing"):
        broker.format_storage(Settings(), home, pytest.fail, Formatter())
    assert (home.kafka / "data" / "telemetry.raw-0").exists()
