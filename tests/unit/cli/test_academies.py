"""The commands ``academy``, ``user`` and ``role``."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from midstream.registry.academies.access import Access
from midstream.settings import load_settings

from .conftest import Run


def made(run: Run, *arguments: str) -> str:
    """Run a command that prints one thing, and return that."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    return line


def listed(run: Run, *arguments: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(run(*arguments, "--json").stdout)
    return found


def refused(run: Run, *arguments: str, code: int = 1) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert isinstance(result.exception, SystemExit)
    return result.stderr


async def test_what_is_made_lets_a_user_in(run: Run) -> None:
    academy, user = made(run, "academy", "create", "Miami"), made(run, "user", "create", "Ada")
    token = made(run, "user", "token", user)
    assert run("role", "grant", user, academy, "crud_telemetry").exit_code == 0
    access = Access(load_settings())
    assert await access.user_of(f"Token {token}") == int(user)
    assert await access.standing(int(user), int(academy), ["crud_telemetry"]) == "active"
    access.close()


class TestAcademy:
    def test_create_prints_the_id_and_nothing_else(self, run: Run) -> None:
        assert made(run, "academy", "create", "Miami") == "1"
        assert made(run, "academy", "create", "Madrid", "--id", "40") == "40"
        assert json.loads(made(run, "academy", "create", "Caracas", "--json")) == {
            "id": 41,
            "name": "Caracas",
            "status": "active",
        }
        assert "40 already" in refused(run, "academy", "create", "x", "--id", "40")
        assert "name" in refused(run, "academy", "create", "")

    @pytest.mark.parametrize("id_", ["0", "-1", "9223372036854775808", "x", "1.5", ""])
    def test_id_that_cannot_be_is_wrong_usage(self, run: Run, id_: str) -> None:
        refused(run, "academy", "create", "x", "--id", id_, code=2)
        refused(run, "academy", "set", "--status", "active", "--", id_, code=2)
        refused(run, "user", "create", "x", "--id", id_, code=2)
        refused(run, "user", "token", "--", id_, code=2)
        refused(run, "role", "grant", "--", id_, "1", "x", code=2)
        assert listed(run, "academy", "list") == []

    def test_set(self, run: Run) -> None:
        run("academy", "create", "Miami")
        for status in ("inactive", "deleted", "active"):
            assert run("academy", "set", "1", "--status", status).exit_code == 0
            assert listed(run, "academy", "list")[0]["status"] == status
        assert "no academy 2" in refused(run, "academy", "set", "2", "--status", "active")
        refused(run, "academy", "set", "1", "--status", "closed", code=2)
        refused(run, "academy", "set", "1", code=2)

    def test_list(self, run: Run) -> None:
        assert run("academy", "list").stdout.split() == ["ID", "NAME", "STATUS", "CREATED_AT"]
        for name in ("a", "b", "\u202e", "c"):
            run("academy", "create", name)
        result = run("academy", "list")
        assert [line.split()[:3] for line in result.stdout.splitlines()[1:]] == [
            ["1", "a", "active"], ["2", "b", "active"], ["3", "\\u202e", "active"], ["4", "c", "active"],
        ]  # fmt: skip
        assert result.stderr == ""
        some = run("academy", "list", "--limit", "2", "--after", "1", "--json")
        assert [one["id"] for one in json.loads(some.stdout)] == [2, 3]
        assert "more than 2" in some.stderr


class TestUser:
    def test_create_and_list(self, run: Run) -> None:
        assert made(run, "user", "create", "Ada") == "1"
        assert json.loads(made(run, "user", "create", "Grace", "--id", "9", "--json")) == {"id": 9, "name": "Grace"}
        assert "9 already" in refused(run, "user", "create", "x", "--id", "9")
        assert [(one["id"], one["name"]) for one in listed(run, "user", "list")] == [(1, "Ada"), (9, "Grace")]
        assert [line.split()[:2] for line in run("user", "list").stdout.splitlines()] == [
            ["ID", "NAME"], ["1", "Ada"], ["9", "Grace"],
        ]  # fmt: skip

    def test_tokens(self, run: Run) -> None:
        run("user", "create", "Ada")
        token = made(run, "user", "token", "1")
        other = json.loads(made(run, "user", "token", "1", "--expires", "30d", "--json"))
        assert other["user"] == 1
        assert other["token"] != token
        assert other["expires_at"].endswith("+00:00")
        found = run("user", "tokens", "1", "--json").stdout
        assert token not in found
        assert other["token"] not in found
        assert [(one["state"], one["expires_at"]) for one in json.loads(found)] == [
            ("active", None),
            ("active", other["expires_at"]),
        ]
        assert [line.split()[0] for line in run("user", "tokens", "1").stdout.splitlines()] == [
            "STATE", "active", "active",
        ]  # fmt: skip
        assert run("user", "revoke", "1").stderr == "2 ended\n"
        assert run("user", "revoke", "1").stderr == "0 ended\n"
        assert [one["state"] for one in listed(run, "user", "tokens", "1")] == ["revoked", "revoked"]

    def test_refused(self, run: Run) -> None:
        for command in ("token", "tokens", "revoke"):
            assert "no user 5" in refused(run, "user", command, "5")
        run("user", "create", "Ada")
        assert "passed" in refused(run, "user", "token", "1", "--expires", "2001-01-01")
        refused(run, "user", "token", "1", "--expires", "soon", code=2)


class TestRole:
    def test_grant_list_revoke(self, run: Run) -> None:
        for name in ("a", "b"):
            run("academy", "create", name)
            run("user", "create", name)
        first = run("role", "grant", "1", "2", "crud_telemetry")
        assert (first.exit_code, first.stdout) == (0, "")
        assert "already" not in first.stderr
        assert "already" in run("role", "grant", "1", "2", "crud_telemetry").stderr
        run("role", "grant", "2", "1", "read_telemetry")
        grants = [
            {"user": 1, "academy": 2, "capability": "crud_telemetry"},
            {"user": 2, "academy": 1, "capability": "read_telemetry"},
        ]
        assert listed(run, "role", "list") == grants
        assert listed(run, "role", "list", "--user", "1") == grants[:1]
        assert listed(run, "role", "list", "--academy", "1") == grants[1:]
        assert run("role", "list").stdout.splitlines()[1].split() == ["1", "2", "crud_telemetry"]
        assert run("role", "revoke", "1", "2", "crud_telemetry").exit_code == 0
        assert listed(run, "role", "list") == grants[1:]
        assert "does not have" in refused(run, "role", "revoke", "1", "2", "crud_telemetry")

    def test_refused(self, run: Run) -> None:
        assert "no user 1" in refused(run, "role", "grant", "1", "1", "crud_telemetry")
        run("user", "create", "a")
        assert "no academy 1" in refused(run, "role", "grant", "1", "1", "crud_telemetry")
        assert "word" in refused(run, "role", "grant", "1", "1", "crud telemetry")
        refused(run, "role", "grant", "1", "1", code=2)


class TestImport:
    def test_all_three_and_again(self, run: Run, tmp_path: Path) -> None:
        files = {
            "academy": b'{"id":4,"name":"Miami","status":"inactive"}\n{"id":5,"name":"Madrid"}\n',
            "user": gzip.compress(b"id,name\n10,Ada\n11,Grace\n"),
            "role": b"user,academy,capability\n10,4,crud_telemetry\n11,5,read_telemetry\n",
        }
        for _ in range(2):
            for command, content in files.items():
                (tmp_path / command).write_bytes(content)
                result = run(command, "import", str(tmp_path / command))
                assert (result.exit_code, result.stdout) == (0, "")
                assert result.stderr == "2 imported, 0 refused\n"
        assert [(one["id"], one["status"]) for one in listed(run, "academy", "list")] == [
            (4, "inactive"),
            (5, "active"),
        ]
        assert [one["id"] for one in listed(run, "user", "list")] == [10, 11]
        assert len(listed(run, "role", "list")) == 2
        assert made(run, "academy", "create", "next") == "6"

    def test_bad_lines_are_named_and_the_rest_is_in(self, run: Run) -> None:
        run("academy", "import", "-", stdin="id,name\n1,a\n")
        run("user", "import", "-", stdin="id,name\n1,a\n")
        result = run("role", "import", "-", stdin="user,academy,capability\n7,1,x\n1,1,x\n1,1,\x1b[31m\n")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "line 2: UNKNOWN_USER: there is no user 7\n" in result.stderr
        assert "line 4: INVALID_ROW: " in result.stderr
        assert result.stderr.endswith("1 imported, 2 refused\n")
        assert len(listed(run, "role", "list")) == 1

    def test_as_json(self, run: Run) -> None:
        result = run("user", "import", "-", "--json", stdin='{"id":1,"name":"a"}\n{"id":0,"name":"b"}\n')
        assert result.exit_code == 1
        told = json.loads(result.stdout)
        assert (told["accepted"], told["refused"]) == (1, 1)
        assert (told["errors"][0]["line"], told["errors"][0]["code"]) == (2, "INVALID_ROW")

    def test_a_file_that_cannot_be_read_on(self, run: Run) -> None:
        result = run("user", "import", "-", stdin="name\nx\n")
        assert result.exit_code == 1
        assert "neither JSON lines nor CSV" in result.stderr
        assert "0 rows are imported" in result.stderr
        assert run("user", "import", "/no/such/file").exit_code == 2
