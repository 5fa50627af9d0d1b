"""``midstream reset``: an empty local home."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import click

from midstream.cli._common import Refused, on_record, read_settings, say

_LOCAL_DATA = (
    "run",
    "logs",
    "kafka",
    "clickhouse",
    "faust",
    "attempts",
    "spool",
    "exhaust",
    "demo-token",
    "restore-erased",
)
_REGISTRY = (
    "registry.db",
    "registry.db-wal",
    "registry.db-shm",
    "registry.db.restoring",
    "registry.key",
    "device-files",
)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(yes: bool) -> None:
    """Empty the local home: events, topics, credentials. Nothing outside of it, and nothing that is not Midstream's.

    Refuses while a pipeline runs on it. A registry elsewhere (MIDSTREAM_REGISTRY), and the key file its secrets need,
    stay as they are.
    """
    from deploy.local.errors import LocalError
    from deploy.local.home import Home, HomeLock
    from deploy.local.orphans import describe, find_processes

    settings = read_settings()
    home = Home(Path(os.path.realpath(settings.home)))
    names = _LOCAL_DATA if settings.registry else (*_LOCAL_DATA, *_REGISTRY)
    found = [home.root / name for name in names if os.path.lexists(home.root / name)]
    if not found:
        say(f"{home.root} has no data of Midstream")
        return
    try:
        lock = HomeLock(home) if home.run.is_dir() else None
    except LocalError as error:
        raise Refused(str(error)) from None
    try:
        running = find_processes(home)
        if running:
            raise Refused(f"processes of a pipeline on {home.root} are alive: {describe(running)}; stop them first")
        if not yes:
            click.confirm(f"Delete all data of Midstream in {home.root}?", abort=True, err=True)
        try:
            # A registry in the home goes with it, and its log with the registry.
            with on_record("home.reset", "home") if settings.registry else nullcontext():
                for path in found:
                    _delete(path)
        except OSError as error:
            raise Refused(f"{error.filename} cannot be deleted: {error.strerror}") from None
    finally:
        if lock is not None:
            lock.release()
    say(f"{home.root} is empty")


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
