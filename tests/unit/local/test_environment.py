from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local import environment


class Steps:
    """Takes the place of venv and pip: remembers the commands, makes what they would."""

    def __init__(self, venv: Path) -> None:
        self.venv = venv
        self.commands: list[list[str]] = []
        self.fail_at = ""

    def __call__(self, command: list[str]) -> None:
        self.commands.append(command)
        if self.fail_at and self.fail_at in command:
            raise environment.InstallError("cut off")
        if "venv" in command:
            (self.venv / "bin").mkdir(parents=True)
            (self.venv / "pyvenv.cfg").touch()
            python = self.venv / "bin" / "python"
            python.write_text("#!/bin/sh\nexit 0\n")
            python.chmod(0o755)

    def names(self) -> list[str]:
        return ["venv" if "venv" in command else "pip" for command in self.commands]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "requirements.lock").write_text("one==1\n")
    (tmp_path / "requirements-test.lock").write_text("one==1\ntwo==2\n")
    return tmp_path


@pytest.fixture
def steps(root: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps(root / ".venv")
    monkeypatch.setattr(environment, "_run", steps)
    return steps


def ensure(root: Path, lock: str = "requirements.lock") -> bool:
    return environment.ensure(root / ".venv", root / lock, root)


def test_made_once_then_again_only_when_the_lock_or_the_project_changes(root: Path, steps: Steps) -> None:
    assert ensure(root)
    assert steps.names() == ["venv", "pip", "pip"]
    assert not ensure(root)
    (root / "requirements.lock").write_text("one==2\n")
    assert ensure(root)
    (root / "pyproject.toml").write_text("[project]\nname='x'\n")
    assert ensure(root)
    assert not ensure(root)
    assert steps.names().count("venv") == 1


def test_everything_is_installed_by_hash_and_nothing_is_built_from_unlocked_tools(root: Path, steps: Steps) -> None:
    ensure(root)
    _, locked, own = steps.commands
    assert {"--require-hashes", "--only-binary"} <= set(locked)
    assert {"--no-deps", "--no-build-isolation", "--no-index", "-e"} <= set(own)


def test_test_lock_is_installed_beside_the_other(root: Path, steps: Steps) -> None:
    ensure(root)
    assert ensure(root, "requirements-test.lock")
    assert not ensure(root)
    assert not ensure(root, "requirements-test.lock")
    assert steps.names() == ["venv", "pip", "pip", "pip", "pip"]


@pytest.mark.parametrize("step", ["venv", "-r", "-e"])
def test_an_installation_that_was_cut_off_is_done_anew(root: Path, steps: Steps, step: str) -> None:
    steps.fail_at = step
    with pytest.raises(environment.InstallError):
        ensure(root)
    (root / ".venv" / "left-behind").touch()
    steps.fail_at = ""
    assert ensure(root)
    assert not (root / ".venv" / "left-behind").exists()
    assert not ensure(root)


def test_an_environment_whose_python_is_gone_is_made_anew(root: Path, steps: Steps) -> None:
    ensure(root)
    (root / ".venv" / "bin" / "python").unlink()
    assert ensure(root)
    assert steps.names().count("venv") == 2


def test_a_moved_checkout_is_installed_again(root: Path, steps: Steps) -> None:
    ensure(root)
    (root / ".venv").rename(root / "elsewhere")
    steps.venv = root / "elsewhere"
    assert environment.ensure(root / "elsewhere", root / "requirements.lock", root)


def test_a_folder_that_is_no_environment_is_left_alone(root: Path, steps: Steps) -> None:
    (root / ".venv").mkdir()
    (root / ".venv" / "thesis.txt").touch()
    with pytest.raises(environment.InstallError, match="no virtual environment"):
        ensure(root)
    assert (root / ".venv" / "thesis.txt").exists()


def test_lock_files_have_hashes_and_name_no_registry() -> None:
    for lock in ("requirements.lock", "requirements-test.lock"):
        text = (environment.ROOT / lock).read_text()
        entries = [block for block in text.replace("\\\n", "").splitlines() if "==" in block]
        assert len(entries) > 50
        assert all("--hash=sha256:" in entry for entry in entries)
        assert "://" not in text
        assert any(entry.startswith("setuptools==") for entry in entries)
