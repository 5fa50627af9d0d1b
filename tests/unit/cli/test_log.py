"""``midstream log``, and the acts of commands in it."""

from __future__ import annotations

import getpass
import json
import socket

import pytest

from midstream.registry import admin_log
from midstream.registry.errors import RegistryUnavailable

from .conftest import Run


def test_commands_are_logged_with_who_ran_them(run: Run) -> None:
    token = run("token", "create", "ops", "--role", "operator").stdout.strip()
    assert run("token", "revoke", "ops").exit_code == 0
    result = run("log", "--json")
    assert result.exit_code == 0
    acts = json.loads(result.stdout)
    assert [(act["action"], act["object"]) for act in acts] == [
        ("credential.revoke", "credential/ops"),
        ("credential.create", "credential/ops"),
        ("registry.migrate", "registry"),
    ]
    assert {(act["actor_kind"], act["actor"], act["address"]) for act in acts} == {
        ("system_user", getpass.getuser(), socket.gethostname())
    }
    assert {act["outcome"] for act in acts} == {"done"}
    assert token not in result.stdout
    table = run("log", "--limit", "1").stdout.splitlines()
    assert len(table) == 2
    assert table[0].split() == ["AT", "WHO", "FROM", "ACTION", "OBJECT", "OUTCOME", "DETAILS"]
    assert "credential.revoke" in table[1]
    assert len(json.loads(run("log", "--json", "--since", "1h").stdout)) == 3
    assert json.loads(run("log", "--json", "--since", "2999-01-01").stdout) == []


def test_an_act_outside_the_registry_is_begun_and_ended(run: Run) -> None:
    assert run("migrate").exit_code == 1  # there is no ClickHouse
    acts = json.loads(run("log", "--json").stdout)
    assert [(act["action"], act["outcome"]) for act in acts] == [
        ("clickhouse.migrate", "failed"),
        ("clickhouse.migrate", "begun"),
        ("registry.migrate", "done"),
    ]


def test_why_an_act_failed_is_heard_where_that_cannot_be_written_down(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note(_engine: object, _action: str, _object: str, outcome: str, **_: object) -> None:
        if outcome == "failed":
            raise RegistryUnavailable("it went away")

    monkeypatch.setattr(admin_log, "note_alone", note)
    result = run("migrate")
    assert result.exit_code == 1
    assert "ClickHouse cannot be reached" in result.stderr
    assert "the admin log has no row of the failure: it went away" in result.stderr
