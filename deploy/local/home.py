"""The folder of all local data, and who may use it: one pipeline at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.errors import LocalError

MIN_FREE_BYTES = 256 * 1024 * 1024
"""Free space below which a start is refused: Kafka and ClickHouse stop in the middle of a write when it runs out."""

_MAX_SOCKET_PATH_BYTES = 90  # the limit is 104 (macOS) or 108, and supervisord appends its pid for a moment


@dataclass(frozen=True, slots=True)
class Home:
    """Where things are in the home. ``root`` is absolute, without symbolic links."""

    root: Path

    @property
    def run(self) -> Path:
        """What only means something while the pipeline runs."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Log files of all processes."""
        return self.root / "logs"

    @property
    def kafka(self) -> Path:
        """Kafka's working folder; its log is in ``data`` below."""
        return self.root / "kafka"

    @property
    def lock(self) -> Path:
        """Held by the launcher as long as it lives; has its pid."""
        return self.run / "launcher.lock"

    @property
    def ready(self) -> Path:
        """JSON, there while the pipeline is ready: URLs, pids, where the token is."""
        return self.run / "ready.json"

    @property
    def token(self) -> Path:
        """Token of the demo credential."""
        return self.root / "demo-token"

    @property
    def socket(self) -> Path:
        """The supervisor's socket: in the home, or in a short folder of this user where that path would be too long."""
        path = self.run / "supervisor.sock"
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
            return path
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"midstream-{os.getuid()}-{name}" / "s.sock"


def open_home(path: Path) -> Home:
    """Make the home and its folders, and see that it can be written to.

    Raises:
        LocalError: it cannot be made or written to, or the disk is full.
    """
    home = Home(Path(os.path.realpath(path)))
    advice = "set MIDSTREAM_HOME to a folder that can be written to"
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (home.run, home.logs, home.kafka):
            folder.mkdir(mode=0o700, exist_ok=True)
        _make_private(home.socket.parent)
        probe = home.run / "probe"
        probe.write_bytes(b"\0" * 65536)
        probe.unlink()
    except OSError as error:
        where = error.filename or home.root
        raise LocalError(f"the home cannot be used: {where}: {error.strerror}; {advice}") from None
    free = shutil.disk_usage(home.root).free
    if free < MIN_FREE_BYTES:
        raise LocalError(
            f"the disk of {home.root} is full: {free >> 20} MiB free, {MIN_FREE_BYTES >> 20} needed; "
            f"make room or {advice}"
        )
    return home


def _make_private(folder: Path) -> None:
    """A folder under the shared temporary one must be ours, or another user could answer on our socket."""
    folder.mkdir(mode=0o700, exist_ok=True)
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise LocalError(f"{folder} belongs to somebody else: remove it, or set MIDSTREAM_HOME to a shorter path")


class HomeLock:
    """The right to run on a home. The kernel ends it with the process, so a kill -9 leaves no stale one."""

    def __init__(self, home: Home) -> None:
        """Take it.

        Raises:
            LocalError: another launcher runs on this home; the message names it.
        """
        self._fd = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise LocalError(
                f"Midstream runs on {home.root} already (pid {pid or 'not known yet'}): "
                "stop it with Ctrl-C there, or set MIDSTREAM_HOME and the ports for a second one"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give it back."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, all of it or nothing."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def write_ready(home: Home, facts: dict[str, Any]) -> None:
    """Say to other programs that the pipeline is ready."""
    write_private(home.ready, json.dumps(facts, indent=2) + "\n")
