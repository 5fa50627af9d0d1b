from __future__ import annotations

import os
import shutil
import socket
import stat
from collections import namedtuple
from pathlib import Path

import pytest

from deploy.local.errors import LocalError
from deploy.local.home import HomeLock, open_home, write_private

Usage = namedtuple("Usage", "total used free")


def test_folders_are_made_for_their_owner_only(tmp_path: Path) -> None:
    home = open_home(tmp_path / "a home")
    for folder in (home.root, home.run, home.logs, home.kafka):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match=r"file.*Not a directory.*MIDSTREAM_HOME"):
        open_home(tmp_path / "file" / "home")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 99, 1 << 20))
    with pytest.raises(LocalError, match=r"is full: 1 MiB free"):
        open_home(tmp_path)


def test_a_write_that_finds_no_space_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LocalError, match="No space left on device"):
        open_home(tmp_path)


def test_the_second_launcher_is_refused_and_told_who_runs(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    lock = HomeLock(home)
    with pytest.raises(LocalError, match=rf"already \(pid {os.getpid()}\)"):
        HomeLock(home)
    lock.release()
    HomeLock(home).release()


def test_a_lock_file_whose_process_is_gone_is_no_lock(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    home.lock.write_text("1\n")
    HomeLock(home).release()


@pytest.mark.parametrize("depth", [0, 20])
def test_the_socket_can_be_bound_however_deep_the_home(tmp_path: Path, depth: int) -> None:
    home = open_home(tmp_path.joinpath(*["folder"] * depth))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{home.socket}.1234567")
    assert stat.S_IMODE(home.socket.parent.stat().st_mode) == 0o700
    Path(f"{home.socket}.1234567").unlink()
    if depth:
        home.socket.parent.rmdir()


def test_a_secret_is_for_its_owner_only_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write_private(path, "one")
    write_private(path, "two")
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["token"]
