"""``midstream trace`` as ``contracts/cli.md`` has it, over a double of what it asks: streams and exit codes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midstream.cli import cli
from midstream.clickhouse import client as clickhouse_client
from midstream.clickhouse.client import ClickHouseError
from midstream.trace import tracer as tracer_module
from midstream.trace.arrivals import Evidence, Reject, Sighting, judge

from .conftest import FakeTracer


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> FakeTracer:
    fake = FakeTracer()

    class Tracer(FakeTracer):
        def __init__(self, *_: Any) -> None:
            self.__dict__ = fake.__dict__

        async def close(self) -> None:
            pass

    class Client:
        rows = None

        def close(self) -> None:
            pass

    monkeypatch.setattr(tracer_module, "Tracer", Tracer)
    monkeypatch.setattr(clickhouse_client, "open_client", lambda settings, **_: Client())
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["trace", *arguments])


def test_a_stored_event_is_exit_0(known: FakeTracer) -> None:
    known.store("M", "app", "other", event='{"mid":"M","x":"\\u001b[2Jé\x7f"}')
    result = run("M")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "M: stored"
    assert "learning_events" in lines[1]
    assert [line.split()[:2] for line in lines if line.startswith("2023-11-14T22:13:20")] == [
        ["2023-11-14T22:13:20.000Z", "stored"],
        ["2023-11-14T22:13:20.001Z", "duplicate"],
    ]
    assert "\x7f" not in result.stdout
    told = run("M", "--json")
    assert told.stdout.isascii()
    assert json.loads(told.stdout)["event"]["x"] == "\x1b[2Jé\x7f"


def test_a_refused_event_is_exit_0_with_its_reason(known: FakeTracer) -> None:
    reject = Reject(1, "UNKNOWN_EID", "/eid", "no schema for\x1b[31m eid")
    known.traces["M"] = judge("M", [Sighting(Evidence.REJECT, "b", 0, 0, reject=reject)])
    result = run("M")
    assert result.exit_code == 0
    assert "UNKNOWN_EID at /eid: no schema" in result.stdout
    assert "\x1b" not in result.stdout


def test_an_event_that_retention_deleted_is_said_to_be_gone(known: FakeTracer) -> None:
    known.traces["M"] = judge("M", [Sighting(Evidence.NAMED_BY_DUPLICATE, "b", 0, 0)])
    assert "retention" in run("M").stdout


@pytest.mark.parametrize("mid", ["never", "", "\x1b[2J", "\udcff"])
def test_unknown_is_exit_1(known: FakeTracer, mid: str) -> None:
    result = run("--", mid)
    assert (result.exit_code, "unknown" in result.stdout, "\x1b" in result.stdout) == (1, True, False)
    told = run("--json", "--", mid)
    assert (told.exit_code, json.loads(told.stdout)["verdict"]) == (1, "unknown")


def test_an_incomplete_search_is_said(known: FakeTracer) -> None:
    known.complete = False
    result = run("never")
    assert (result.exit_code, "there may be more" in result.stderr) == (1, True)


def test_without_clickhouse_it_is_refused(known: FakeTracer, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(settings: object, **_: object) -> None:
        raise ClickHouseError("no answer", None)

    monkeypatch.setattr(clickhouse_client, "open_client", away)
    result = run("M")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "ClickHouse" in result.stderr
