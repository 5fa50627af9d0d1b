"""``midstream dimensions load`` as ``contracts/cli.md`` has it: streams and exit codes."""

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from midstream.cli import cli
from midstream.cli.dimensions import _TYPES
from midstream.dimensions import DimensionType
from midstream.kafka import dimension_publisher
from midstream.settings import Settings

from .conftest import FakePublisher

GOOD = b'{"id":"a","attributes":{"x":1}}\n{"id":"b","attributes":{}}\n'


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakePublisher:
    fake = FakePublisher()

    class Publisher(FakePublisher):
        def __init__(self, settings: Settings) -> None:
            self.__dict__ = fake.__dict__

        async def close(self) -> None:
            pass

    monkeypatch.setattr(dimension_publisher, "DimensionPublisher", Publisher)
    return fake


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["dimensions", "load", *arguments], input=stdin)


def test_all_loaded_is_exit_0_with_nothing_on_stdout(kafka: FakePublisher, tmp_path: Path) -> None:
    file = tmp_path / "users.jsonl.gz"
    file.write_bytes(gzip.compress(GOOD))
    result = run("user", str(file))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "2 loaded, 0 refused\n")
    assert [(row.type, row.id) for row in kafka.rows] == [("user", "a"), ("user", "b")]


def test_standard_input(kafka: FakePublisher) -> None:
    assert run("content", "-", stdin=GOOD).exit_code == 0
    assert [(row.type, row.id) for row in kafka.rows] == [("content", "a"), ("content", "b")]


def test_refused_rows_are_exit_1_and_named(kafka: FakePublisher, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_bytes(GOOD + b"nope\n" * 150)
    result = run("user", str(file), "--json")
    assert result.exit_code == 1
    counts = json.loads(result.stdout)
    assert (counts["accepted"], counts["refused"], len(counts["errors"])) == (2, 150, 100)
    assert counts["errors"][0]["line"] == 3
    assert "line 3: INVALID_JSON" in result.stderr
    assert "and 50 more" in result.stderr


def test_kafka_away_is_exit_1_with_what_is_loaded(kafka: FakePublisher, tmp_path: Path) -> None:
    kafka.fail_after = 1
    result = run("user", "-", "--json", stdin=GOOD)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["accepted"] == 1
    assert "1 rows are loaded; load the file again" in result.stderr
    assert "Traceback" not in result.output


def test_a_file_that_is_corrupt_is_exit_1(kafka: FakePublisher) -> None:
    result = run("user", "-", stdin=gzip.compress(GOOD)[:-1])
    assert result.exit_code == 1
    assert "corrupt" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("user",), ("planet", "-"), ("user", "/no/such/file")])
def test_wrong_usage_is_exit_2(kafka: FakePublisher, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_the_command_knows_every_type() -> None:
    assert set(_TYPES) == set(DimensionType)
