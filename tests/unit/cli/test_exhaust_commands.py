"""The commands ``dataset``, ``licence`` and ``exhaust``."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from midstream.exhaust.dataset import D001, Dataset, to_declaration
from midstream.registry.engine import open_engine
from midstream.registry.exhaust.access import ExhaustAccess
from midstream.registry.exhaust.errors import LoginError
from midstream.registry.exhaust.revisions import Revisions
from midstream.settings import load_settings

from .conftest import Run

HASH = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
MINE = ("--dataset", "D001", "--resource", HASH)
DECLARATION: dict[str, Any] = {
    "name": "D002",
    "resource": "channel",
    "filter": [{"column": "eid", "in": ["START", "END"]}, {"column": "env", "not_in": ["test"]}],
    "columns": ["mid", "raw"],
    "retention_days": 90,
}


def made(run: Run, *arguments: str) -> str:
    """Run a command that prints one thing, and return that."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    (line,) = result.stdout.splitlines()
    return line


def listed(run: Run, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*arguments, "--json").stdout)
    return found


def refused(run: Run, *arguments: str, code: int = 1, stdin: bytes | str | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr


async def test_what_is_made_lets_a_partner_in_until_it_is_revoked(run: Run) -> None:
    made(run, "dataset", "declare", "--name", "D002", "--resource", "channel", "--eid", "START")
    key = made(run, "licence", "create", "partner", *MINE, "--dataset", "D002", "--resource", "c")
    access = ExhaustAccess(load_settings())
    licence = await access.licence_of(key)
    assert await access.dataset_for(licence, "D001", HASH) == (D001, HASH)
    found = await access.dataset_for(licence, "D002", "c")
    assert found is not None
    assert found[0].filter[0].values == ("START",)
    access.close()
    assert run("licence", "revoke", key).stderr == "partner is revoked\n"
    access = ExhaustAccess(load_settings())
    with pytest.raises(LoginError):
        await access.licence_of(key)
    access.close()


class TestDataset:
    def test_d001_is_there(self, run: Run) -> None:
        assert listed(run, "dataset", "list") == [to_declaration(D001)]
        (titles, row) = run("dataset", "list").stdout.splitlines()
        assert titles.split() == ["NAME", "RESOURCE", "FILTER", "COLUMNS", "RETENTION"]
        assert row.split() == ["D001", "tags", "all", "as", "came", "for", "ever"]

    def test_declared_by_file_shown_and_declared_again(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "d.json"
        file.write_text(json.dumps(DECLARATION))
        result = run("dataset", "declare", str(file))
        assert (result.exit_code, result.stdout, result.stderr) == (0, "D002\n", "D002 is created\n")
        shown = run("dataset", "show", "D002").stdout
        assert json.loads(shown) == DECLARATION
        assert run("dataset", "declare", "-", stdin=shown).stderr == "D002 is unchanged\n"
        changed = json.dumps(DECLARATION | {"retention_days": 0})
        result = run("dataset", "declare", "-", "--json", stdin=changed)
        assert json.loads(result.stdout) == DECLARATION | {"retention_days": 0}
        assert result.stderr == "D002 is changed\n"
        row = run("dataset", "list").stdout.splitlines()[2]
        assert " ".join(row.split()) == "D002 channel eid in START,END and env not in test mid,raw for ever"

    def test_declared_by_options(self, run: Run) -> None:
        assert made(run, "dataset", "declare", "--name", "A") == "A"
        arguments = ["--eid", "START", "--eid", "END", "--channel", "c", "--column", "mid", "--column", "eid"]
        made(run, "dataset", "declare", "--name", "B", "--resource", "did", "--retention-days", "30", *arguments)
        assert listed(run, "dataset", "list")[:2] == [
            to_declaration(Dataset("A", "tags")),
            {
                "name": "B",
                "resource": "did",
                "filter": [{"column": "eid", "in": ["START", "END"]}, {"column": "channel", "in": ["c"]}],
                "columns": ["mid", "eid"],
                "retention_days": 30,
            },
        ]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (b"", "no JSON"),
            (b"{", "no JSON"),
            (b"\xff", "no JSON"),
            (b'"\xff"', "no JSON"),
            (b"[" * 60_000, "JSON"),
            (b" " * 70_000, "65536 bytes"),
            (b"[]", "is no JSON object"),
            (json.dumps(DECLARATION | {"filter": [{"column": "user", "in": ["a"]}]}).encode(), "filter[0].column"),
            (json.dumps(DECLARATION | {"columns": ["device"]}).encode(), "columns[0]"),
            (json.dumps(DECLARATION | {"name": "../x"}).encode(), "name"),
            (json.dumps(DECLARATION | {"more": 1}).encode(), "'more'"),
        ],
    )
    def test_a_file_that_cannot_be(self, run: Run, text: bytes, says: str) -> None:
        assert says in refused(run, "dataset", "declare", "-", stdin=text)
        assert len(listed(run, "dataset", "list")) == 1

    def test_options_that_cannot_be(self, run: Run) -> None:
        assert "name" in refused(run, "dataset", "declare", "--name", "a b")
        assert "name" in refused(run, "dataset", "declare", "--name", "")
        assert "resource" in refused(run, "dataset", "declare", "--name", "A", "--resource", "user")
        assert "resource" in refused(run, "dataset", "declare", "--name", "A", "--resource", "")
        assert "columns[0]" in refused(run, "dataset", "declare", "--name", "A", "--column", "flags")
        assert "retention" in refused(run, "dataset", "declare", "--name", "A", "--retention-days", "-1")

    def test_wrong_usage(self, run: Run) -> None:
        refused(run, "dataset", "declare", code=2)
        refused(run, "dataset", "declare", "-", "--name", "A", code=2, stdin=json.dumps(DECLARATION))
        refused(run, "dataset", "declare", "-", "--retention-days", "0", code=2, stdin=json.dumps(DECLARATION))
        refused(run, "dataset", "declare", "--eid", "START", code=2)
        refused(run, "dataset", "declare", "/nowhere/d.json", code=2)
        refused(run, "dataset", "declare", "--name", "A", "--retention-days", "x", code=2)
        assert len(listed(run, "dataset", "list")) == 1

    def test_one_that_is_not_there(self, run: Run) -> None:
        assert "no dataset D009" in refused(run, "dataset", "show", "D009")

    def test_another_rule_while_there_are_rights(self, run: Run) -> None:
        made(run, "licence", "create", "partner", *MINE)
        assert "another rule" in refused(run, "dataset", "declare", "--name", "D001", "--resource", "channel")


class TestLicence:
    def test_create_prints_the_key_and_nothing_else(self, run: Run) -> None:
        result = run("licence", "create", "partner", *MINE)
        assert (result.exit_code, result.stderr) == (0, "")
        assert str(uuid.UUID(result.stdout.strip())) == result.stdout.strip()
        other = json.loads(made(run, "licence", "create", "other", *MINE, "--expires", "30d", "--json"))
        assert set(other) == {"name", "key", "expires_at"}
        text = run("licence", "list", "--json").stdout + run("licence", "list").stdout
        assert other["key"] not in text
        assert result.stdout.strip() not in text
        assert [(one["name"], one["state"], one["expires_at"]) for one in listed(run, "licence", "list")] == [
            ("other", "active", other["expires_at"]),
            ("partner", "active", None),
        ]

    def test_list(self, run: Run) -> None:
        assert run("licence", "list").stdout.split() == [
            "NAME",
            "STATE",
            "CREATED",
            "EXPIRES",
            "LAST",
            "USED",
            "RIGHTS",
        ]
        for name in ("c", "a", "b"):
            made(run, "licence", "create", name, *MINE)
        run("licence", "revoke", "b")
        rows = [line.split() for line in run("licence", "list").stdout.splitlines()[1:]]
        assert [(row[0], row[1], *row[3:]) for row in rows] == [
            ("a", "active", "never", "never", f"D001/{HASH}"),
            ("b", "revoked", "never", "never", f"D001/{HASH}"),
            ("c", "active", "never", "never", f"D001/{HASH}"),
        ]
        some = run("licence", "list", "--limit", "1", "--after", "a", "--json")
        assert [one["name"] for one in json.loads(some.stdout)] == ["b"]
        assert "more than 1" in some.stderr

    def test_grant_and_withdraw(self, run: Run) -> None:
        made(run, "dataset", "declare", "--name", "D002", "--resource", "channel")
        made(run, "licence", "create", "partner", *MINE)
        both = ("--dataset", "D002", "--resource", "c", "--dataset", "D001", "--resource", HASH[:32].upper())
        assert run("licence", "grant", "partner", *both).stderr == "partner: 1 given, 1 there already\n"
        assert listed(run, "licence", "list")[0]["rights"] == [
            {"dataset": "D001", "resource": HASH},
            {"dataset": "D002", "resource": "c"},
        ]
        assert run("licence", "withdraw", "partner", *both).stderr == "partner: 2 withdrawn\n"
        assert listed(run, "licence", "list")[0]["rights"] == []
        assert "no right" in refused(run, "licence", "withdraw", "partner", *both)

    def test_what_is_refused(self, run: Run) -> None:
        made(run, "licence", "create", "partner", *MINE)
        assert "already" in refused(run, "licence", "create", "partner", *MINE)
        assert "name" in refused(run, "licence", "create", "a b", *MINE)
        assert "no dataset D009" in refused(run, "licence", "create", "x", "--dataset", "D009", "--resource", HASH)
        assert "hex digits" in refused(run, "licence", "create", "x", "--dataset", "D001", "--resource", HASH + "0")
        assert "expiry" in refused(run, "licence", "create", "x", *MINE, "--expires", "2020-01-01")
        for change in ("grant", "withdraw"):
            assert "no licence x" in refused(run, "licence", change, "x", *MINE)
        assert "of this name" in refused(run, "licence", "revoke", "x")
        nobodys = str(uuid.UUID(int=7))
        assert nobodys not in refused(run, "licence", "revoke", nobodys)
        assert [one["name"] for one in listed(run, "licence", "list")] == ["partner"]

    @pytest.mark.parametrize("command", ["create", "grant", "withdraw"])
    def test_wrong_usage(self, run: Run, command: str) -> None:
        assert "2 times" in refused(run, "licence", command, "x", *MINE, "--dataset", "D001", code=2)
        refused(run, "licence", command, "x", "--dataset", "D001", code=2)
        refused(run, "licence", command, "x", "--resource", HASH, code=2)
        refused(run, "licence", command, *MINE, code=2)

    def test_wrong_usage_of_others(self, run: Run) -> None:
        refused(run, "licence", "create", "x", *MINE, "--expires", "soon", code=2)
        refused(run, "licence", "revoke", code=2)
        refused(run, "licence", "list", "--limit", "0", code=2)


class TestRebuild:
    @staticmethod
    def revisions(key: str) -> dict[str, list[str]]:
        engine = open_engine(load_settings())
        found = Revisions(engine).of(D001, key, date(2020, 1, 1), date(2030, 1, 1))
        engine.dispose()
        return {day.isoformat(): [one.reason for one in revisions] for day, revisions in found.items()}

    def test_of_one_day_or_many(self, run: Run) -> None:
        result = run("exhaust", "rebuild", "D001", "2024-02-29", "--reason", "an erase")
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "1 day of D001 will be built anew\n"
        days = ("2024-02-28", "--to", "2024-03-01")
        result = run("exhaust", "rebuild", "D001", *days, "--resource", HASH.upper(), "--reason", "its own")
        assert result.stderr == "3 days of D001 will be built anew\n"
        assert self.revisions(HASH) == {
            "2024-02-28": ["its own"],
            "2024-02-29": ["an erase", "its own"],
            "2024-03-01": ["its own"],
        }
        assert self.revisions("0" * 40) == {"2024-02-29": ["an erase"]}

    def test_what_is_refused(self, run: Run) -> None:
        reason = ("--reason", "r")
        today = datetime.now(UTC).date()
        for day in (today, today + timedelta(days=1)):
            assert "before today" in refused(run, "exhaust", "rebuild", "D001", day.isoformat(), *reason)
        last = ("2026-01-01", "--to", today.isoformat())
        assert "before today" in refused(run, "exhaust", "rebuild", "D001", *last, *reason)
        back = ("2026-01-02", "--to", "2026-01-01")
        assert "days" in refused(run, "exhaust", "rebuild", "D001", *back, *reason)
        assert "days" in refused(run, "exhaust", "rebuild", "D001", "0001-01-01", "--to", "2026-01-01", *reason)
        assert "no dataset" in refused(run, "exhaust", "rebuild", "D009", "2026-01-01", *reason)
        assert "hex" in refused(run, "exhaust", "rebuild", "D001", "2026-01-01", "--resource", "../x", *reason)
        assert "reason" in refused(run, "exhaust", "rebuild", "D001", "2026-01-01", "--reason", " ")
        assert self.revisions(HASH) == {}

    @pytest.mark.parametrize(
        "day", ["2026-02-30", "2025-02-29", "20260101", "2026-1-1", "2026-W01-1", "today", "", "２０２６-01-01"]
    )
    def test_no_day_is_wrong_usage(self, run: Run, day: str) -> None:
        refused(run, "exhaust", "rebuild", "D001", day, "--reason", "r", code=2)
        refused(run, "exhaust", "rebuild", "D001", "2026-01-01", "--to", day, "--reason", "r", code=2)

    def test_a_reason_has_to_be_given(self, run: Run) -> None:
        refused(run, "exhaust", "rebuild", "D001", "2026-01-01", code=2)
