"""This machine: room on the disks, and the packages that run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path

from midstream.check.result import Result, fail, ok, warn
from midstream.settings import MIB, Settings

_LOCK = Path(__file__).parents[2] / "requirements.lock"
_WARN_SHARE = 0.10
_FAIL_BYTES = 256 * MIB
_SHOWN = 5


def check_disk(settings: Settings, _timeout_s: float) -> list[Result]:
    """Return whether there is room for the home and for full spools."""
    spools = settings.spool_max_bytes * settings.web_workers
    needs = {settings.home: 0, settings.exhaust_folder: 0}
    needs[settings.spool_folder] = needs.get(settings.spool_folder, 0) + spools
    by_disk: dict[int, tuple[Path, int]] = {}
    for folder, needed in needs.items():
        there = next(one for one in (folder, *folder.parents) if one.exists())
        first, sum_ = by_disk.get(there.stat().st_dev, (there, 0))
        by_disk[there.stat().st_dev] = first, sum_ + needed
    results = []
    for folder, needed in by_disk.values():
        usage = shutil.disk_usage(folder)
        results.append(judge_room("disk", str(folder), usage.free, usage.total, needed))
    return results


def judge_room(check: str, where: str, free: int, total: int, needed: int) -> Result:
    """Judge the free bytes of a disk on which ``needed`` more may be written at once."""
    message = f"{where}: {free // MIB:,} of {total // MIB:,} MiB free"
    if free < _FAIL_BYTES:
        return fail(check, message, f"make room on the disk of {where}")
    if free < needed:
        change = f"make room for full spools ({needed // MIB:,} MiB), or lower MIDSTREAM_SPOOL_MAX_BYTES"
        return warn(check, message, change)
    if free < _WARN_SHARE * total:
        return warn(check, message, f"make room on the disk of {where}")
    return ok(check, message)


def check_packages(_settings: Settings, _timeout_s: float) -> list[Result]:
    """Return whether the packages are those that were tested together."""
    if not _LOCK.exists():
        return [ok("packages", f"midstream {_version('midstream')}; not checked: installed without its lock")]
    locked = locked_versions(_LOCK.read_text("utf-8"))
    return [judge_packages(locked, {name: _version(name) for name in locked})]


def judge_packages(locked: Mapping[str, Collection[str]], installed: Mapping[str, str]) -> Result:
    """Judge the installed versions ("": not installed) by the locked ones."""
    # What is not installed may be for another Python, or another system.
    others = [
        f"{name} {installed[name]} (locked: {', '.join(sorted(versions))})"
        for name, versions in locked.items()
        if installed[name] and installed[name] not in versions
    ]
    if not others:
        return ok("packages", f"the {len(locked)} of the lock")
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return warn("packages", f"other versions than locked: {', '.join(others[:_SHOWN])}{more}", "make environment")


def locked_versions(lock: str) -> dict[str, set[str]]:
    """Return the versions that a lock names, by package: of some it has one for each of several Pythons."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock, re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
