import pytest

from midstream.kafka.sealing import numbers_of, other_members, sign
from tests.unit.cli.conftest import Run

UUID = "0b6c3f2e-7a51-4a8e-9d15-3f1a2b3c4d5e"


@pytest.mark.parametrize("arguments", [("list",), ("grow", "8"), ("grow", "8", "--topic", "telemetry.raw")])
def test_kafka_away_is_said(run: Run, arguments: tuple[str, ...]) -> None:
    result = run("partitions", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Kafka at 127.0.0.1:")


@pytest.mark.parametrize("arguments", [("grow",), ("grow", "0"), ("grow", "x"), ("grow", "8", "--topic", "dimensions")])
def test_wrong_usage(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("partitions", *arguments).exit_code == 2


def test_members_say_under_how_many_partitions_they_seal() -> None:
    named = f"{sign('midstream-validate-local-1', 4)}-{UUID}"
    unnamed = f"{sign('midstream-validate', 12)}-{UUID}"
    old = f"midstream-validate-local-1-{UUID}"
    assert numbers_of([named, unnamed, old, "", f"worker-p3-{UUID}-x"]) == {named: 4, unnamed: 12}
    assert other_members([named, unnamed, old], 12) == [named]
    assert other_members([unnamed, old], 12) == []
