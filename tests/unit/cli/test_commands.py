import fcntl
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import Result

from midstream.cli import cli

from .conftest import Run

GOOD: dict[str, Any] = {
    "eid": "LOG",
    "mid": "LOG:1",
    "ver": "3.0",
    "ets": 1_700_000_000_000,
    "actor": {"id": "u", "type": "User"},
    "context": {"channel": "c", "env": "e"},
    "edata": {"type": "system", "level": "INFO", "message": "m"},
}


def refused(result: Result) -> str:
    """Check that a command refused with a reason, and return it."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr
    return result.stderr


def test_every_command_has_help(run: Run) -> None:
    overview = run("--help")
    assert overview.exit_code == 0
    for name, command in cli.commands.items() or [
        (name, cli.get_command(None, name)) for name in cli.list_commands(None)
    ]:  # type: ignore[arg-type]
        assert command is not None
        assert name in overview.stdout
        assert run(name, "--help").exit_code == 0
        for sub in getattr(command, "commands", {}):
            assert run(name, sub, "--help").exit_code == 0


def test_unknown_command_and_option_are_wrong_usage(run: Run) -> None:
    for arguments in (
        ["nonsense"],
        ["_common"],
        ["token"],
        ["token", "create"],
        ["token", "create", "a", "--role", "king"],
    ):
        assert run(*arguments).exit_code == 2


def test_wrong_setting_is_wrong_usage_and_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_PORT", "0")
    result = run("token", "list")
    assert result.exit_code == 2
    assert "MIDSTREAM_PORT" in result.stderr


def test_starts_without_loading_what_it_does_not_need() -> None:
    code = "import sys, midstream.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sqlalchemy", "aiokafka", "clickhouse_connect", "pydantic", "alembic"} & set(loaded)


class TestToken:
    def test_create_prints_the_token_and_nothing_else(self, run: Run) -> None:
        result = run("token", "create", "app")
        assert result.exit_code == 0
        assert result.stderr == ""
        (token,) = result.stdout.splitlines()
        assert jwt.decode(token, options={"verify_signature": False}) == {"iss": "app"}

    def test_create_as_json(self, run: Run) -> None:
        printed = json.loads(run("token", "create", "ops", "--role", "operator", "--json").stdout)
        assert (printed["name"], printed["role"]) == ("ops", "operator")
        assert printed["token"].count(".") == 2

    def test_name_in_use_is_refused(self, run: Run) -> None:
        run("token", "create", "app")
        assert "exists" in refused(run("token", "create", "app"))

    def test_name_that_cannot_be_is_refused(self, run: Run) -> None:
        assert "letters" in refused(run("token", "create", "../x"))

    def test_revoke_and_list(self, run: Run) -> None:
        token = run("token", "create", "app").stdout.strip()
        assert run("token", "revoke", "app").exit_code == 0
        assert run("token", "revoke", "app").exit_code == 0
        (listed,) = json.loads(run("token", "list", "--json").stdout)
        assert (listed["name"], listed["state"]) == ("app", "revoked")
        text = run("token", "list").stdout
        assert "app" in text
        assert token not in text
        assert "nobody" in refused(run("token", "revoke", "nobody"))


class TestCredential:
    def test_create_prints_the_secret_and_nothing_else(self, run: Run) -> None:
        result = run("credential", "create", "app")
        assert result.stderr == ""
        assert len(result.stdout.strip()) == 43

    def test_create_with_all(self, run: Run) -> None:
        made = json.loads(
            run(
                "credential", "create", "app", "--key", "k1", "--role", "operator", "--channel", "a", "--channel", "b",
                "--expires", "30d", "--json",
            ).stdout
        )  # fmt: skip
        assert jwt.decode(made["token"], made["secret"], algorithms=["HS256"]) == {"iss": "k1"}
        (listed,) = json.loads(run("credential", "list", "--json").stdout)
        assert (listed["key"], listed["name"], listed["role"], listed["channels"]) == (
            "k1",
            "app",
            "operator",
            ["a", "b"],
        )
        assert listed["expires_at"] > listed["created_at"]
        assert "a,b" in run("credential", "list").stdout

    @pytest.mark.parametrize("expires", ["2031-01-01", "2031-01-01T00:00:00", "2031-01-01T05:30:00+05:30"])
    def test_expiry_is_utc_unless_it_names_a_zone(self, run: Run, expires: str) -> None:
        run("credential", "create", "app", "--expires", expires)
        (listed,) = json.loads(run("credential", "list", "--json").stdout)
        assert listed["expires_at"] == "2031-01-01T00:00:00+00:00"

    @pytest.mark.parametrize("expires", ["", "soon", "30x", "999999d9", "2031-13-01"])
    def test_expiry_that_is_none_is_wrong_usage(self, run: Run, expires: str) -> None:
        assert run("credential", "create", "app", "--expires", expires).exit_code == 2

    def test_expiry_in_the_past_is_refused(self, run: Run) -> None:
        assert "passed" in refused(run("credential", "create", "app", "--expires", "2001-01-01"))

    def test_rotate_and_revoke(self, run: Run) -> None:
        first = run("credential", "create", "app").stdout
        second = run("credential", "rotate", "app")
        assert second.exit_code == 0
        assert second.stdout != first
        assert run("credential", "revoke", "app").exit_code == 0
        assert "revoked" in refused(run("credential", "rotate", "app"))
        assert "no credential" in refused(run("credential", "revoke", "nobody"))


class TestValidate:
    def write(self, path: Path, *events: object) -> str:
        path.write_text(json.dumps({"events": events}))
        return str(path)

    def test_valid(self, run: Run, tmp_path: Path) -> None:
        result = run("validate", self.write(tmp_path / "b.json", GOOD, {**GOOD, "mid": "LOG:2"}))
        assert result.exit_code == 0
        assert result.stdout.splitlines() == ["0  LOG:1  valid", "1  LOG:2  valid"]

    def test_refused_event_is_named(self, run: Run, tmp_path: Path) -> None:
        bad = {**GOOD, "edata": {**GOOD["edata"], "level": 1}}
        result = run("validate", self.write(tmp_path / "b.json", GOOD, bad, 3))
        assert result.exit_code == 1
        lines = result.stdout.splitlines()
        assert lines[0].endswith("valid")
        assert "SCHEMA_VIOLATION  /edata/level" in lines[1]
        assert "NOT_AN_OBJECT" in lines[2]

    def test_gzip_stdin_and_json(self, run: Run) -> None:
        body = gzip.compress(json.dumps({"events": [GOOD, GOOD]}).encode())
        printed = json.loads(run("validate", "-", "--json", stdin=body).stdout)
        assert (printed["valid"], printed["invalid"]) == (2, 0)
        assert [event["duplicate_of"] for event in printed["events"]] == [None, 0]

    @pytest.mark.parametrize("body", [b"", b"no", b"[]", b"{}", gzip.compress(b'{"events":[]}')[:-5], b" " * 1_100_000])
    def test_whole_batch_refused(self, run: Run, body: bytes) -> None:
        assert "refused" in refused(run("validate", "-", stdin=body))

    def test_terminal_commands_in_an_event_are_shown_not_sent(self, run: Run, tmp_path: Path) -> None:
        result = run("validate", self.write(tmp_path / "b.json", {**GOOD, "mid": "a\x1b[31m\nb"}))
        assert "\x1b" not in result.stdout
        assert len(result.stdout.splitlines()) == 1

    def test_missing_file_is_wrong_usage(self, run: Run) -> None:
        assert run("validate", "/no/such/file").exit_code == 2


class TestReset:
    def fill(self, home: Path) -> None:
        for name in ("run", "logs", "kafka/data", "clickhouse/store", "faust", "photos"):
            (home / name).mkdir(parents=True)
            (home / name / "file").write_text("x")
        (home / "notes.txt").write_text("mine")

    def test_deletes_what_is_midstreams_and_nothing_else(self, run: Run, home: Path) -> None:
        self.fill(home)
        run("token", "create", "app")
        outside = home.parent / "outside"
        outside.mkdir()
        (outside / "file").write_text("x")
        (home / "clickhouse" / "link").symlink_to(outside)
        result = run("reset", "--yes")
        assert result.exit_code == 0, result.stderr
        assert sorted(path.name for path in home.iterdir()) == ["notes.txt", "photos"]
        assert (outside / "file").exists()
        assert run("reset", "--yes").exit_code == 0

    def test_asks_first(self, run: Run, home: Path) -> None:
        self.fill(home)
        assert run("reset", stdin="n\n").exit_code == 1
        assert (home / "kafka").exists()
        assert run("reset", stdin="y\n").exit_code == 0
        assert not (home / "kafka").exists()

    def test_refuses_while_a_pipeline_runs(self, run: Run, home: Path) -> None:
        self.fill(home)
        lock = os.open(home / "run" / "launcher.lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert "runs on" in refused(run("reset", "--yes"))
        finally:
            os.close(lock)
        assert (home / "kafka" / "data" / "file").exists()

    def test_refuses_while_a_process_of_it_is_left(self, run: Run, home: Path) -> None:
        self.fill(home)
        env = {**os.environ, "MIDSTREAM_RUN_HOME": str(home)}
        left = subprocess.Popen([sys.executable, "-c", "input()"], env=env, stdin=subprocess.PIPE)
        try:
            assert f"pid {left.pid}" in refused(run("reset", "--yes"))
        finally:
            left.communicate(b"\n")

    def test_keeps_the_key_of_a_registry_elsewhere(
        self, run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MIDSTREAM_REGISTRY", f"sqlite:///{tmp_path}/elsewhere.db")
        run("token", "create", "app")
        self.fill(home)
        run("reset", "--yes")
        assert (home / "registry.key").exists()
        assert json.loads(run("token", "list", "--json").stdout)[0]["state"] == "active"


class TestCheckAndMigrate:
    def test_check_names_what_fails_within_its_time(self, run: Run, home: Path) -> None:
        run("token", "create", "app")
        result = run("check", "--json")
        assert result.exit_code == 1
        found = {one["check"]: one for one in json.loads(result.stdout)}
        assert {name: one["ok"] for name, one in found.items()} == {
            "settings": True,
            "schemas": True,
            "registry": True,
            "registry.key": True,
            "kafka": False,
            "clickhouse": False,
            "disk": True,
            "packages": True,
        }
        assert "1 active" in found["registry"]["message"]
        assert "cannot be reached" in found["kafka"]["message"]
        assert "cannot be reached" in found["clickhouse"]["message"]
        assert {found[name]["level"] for name in ("kafka", "clickhouse")} == {"fail"}
        assert "MIDSTREAM_KAFKA" in found["kafka"]["change"]
        assert "MIDSTREAM_CLICKHOUSE" in found["clickhouse"]["change"]

    def test_check_names_a_key_that_others_can_read(self, run: Run, home: Path) -> None:
        run("token", "create", "app")
        (home / "registry.key").chmod(0o644)
        assert "chmod 600" in run("check").stdout

    def test_a_key_that_is_mounted_may_be_read_and_not_written(
        self, run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = tmp_path / "mounted"
        monkeypatch.setenv("MIDSTREAM_REGISTRY_KEY", str(key))
        run("token", "create", "app")
        assert not (home / "registry.key").exists()
        key.chmod(0o444)
        assert "nobody else may write it" in run("check").stdout
        key.chmod(0o464)
        assert f"chmod go-w {key}" in run("check").stdout

    def test_check_before_the_first_start_says_what_to_do(self, run: Run) -> None:
        assert "midstream migrate" in run("check").stdout

    def test_migrate_does_the_registry_and_names_what_is_away(self, run: Run, home: Path) -> None:
        result = run("migrate")
        assert result.exit_code == 1
        assert "registry: up to date" in result.stderr
        assert "ClickHouse cannot be reached" in result.stderr
        assert (home / "registry.key").exists()
