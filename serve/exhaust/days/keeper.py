"""Keeps the folder of built days within its bound, and removes what was revised and what killed builders left there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, date, datetime
from pathlib import Path

from midstream.logs import get_logger
from midstream.metrics import EXHAUST_KEPT_BYTES, EXHAUST_KEPT_DAYS
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.exhaust.access import ExhaustAccess
from midstream.settings import Settings
from serve.exhaust.days.shelf import DATA, FACTS, GONE, LOCK, PART, PROGRESS, WAITING, kept_days, make_room, remove_day
from serve.repeating import Repeating

_log = get_logger(__name__)

LOOK_S = 30.0
_THOROUGH_S = 3600.0
_LEFT_OVER_S = 24 * 3600.0
_MAX_GONE = 100_000
"""Removed days whose hashes are remembered; each takes some KB."""


class Keeper:
    """Belongs to one event loop. Each process of the api looks after the same folder."""

    def __init__(self, settings: Settings, access: ExhaustAccess, look_s: float = LOOK_S) -> None:
        self._access = access
        self._revision = -1
        self._thorough_at = time.monotonic()
        self._folder = settings.exhaust_folder
        self._most_bytes = settings.exhaust_bytes
        self._looking = Repeating("exhaust-keeper", self._look, look_s)

    def start(self) -> None:
        """Begin to look after it."""
        self._looking.start()

    async def close(self) -> None:
        """Stop."""
        await self._looking.close()

    async def _look(self) -> None:
        thorough = time.monotonic() >= self._thorough_at
        try:
            kept_bytes, days = await asyncio.to_thread(tidy, self._folder, self._most_bytes)
            EXHAUST_KEPT_BYTES.set(kept_bytes)
            EXHAUST_KEPT_DAYS.set(days)
            newest = await self._access.newest_revision()
            if thorough or newest != self._revision:
                await self._remove_old()
                self._revision = newest
            if thorough:
                await asyncio.to_thread(clear, self._folder)
                self._thorough_at = time.monotonic() + _THOROUGH_S
        except RegistryUnavailable as error:
            _log.warning("exhaust.registry_not_read", error=str(error))
        except OSError as error:
            _log.error("exhaust.folder_not_kept", folder=str(self._folder), error=str(error))

    async def _remove_old(self) -> None:
        """Remove the files of days that have a newer revision, as what was erased must not stay in them, and of days
        past their dataset's retention."""
        today = datetime.now(UTC).date()
        for (dataset, resource), days in (await asyncio.to_thread(_by_resource, self._folder)).items():
            numbers = await self._access.newest_revisions(dataset, resource, {day for day, _, _ in days})
            retention_days = await self._access.retention_days(dataset)
            for day, number, path in days:
                if number < numbers.get(day, 0) or (retention_days and (today - day).days > retention_days):
                    await asyncio.to_thread(remove_day, path)
                    _log.info("exhaust.old_day_removed", dataset=dataset, day=str(day), revision=number)


def _by_resource(folder: Path) -> dict[tuple[str, str], list[tuple[date, int, Path]]]:
    found: dict[tuple[str, str], list[tuple[date, int, Path]]] = {}
    for path, facts in kept_days(folder):
        try:
            day = (date.fromisoformat(facts["date"]), int(facts["revision"]), path)
            found.setdefault((str(facts["dataset"]), str(facts["resource"])), []).append(day)
        except (KeyError, ValueError, TypeError):
            continue  # not one of ours
    return found


def tidy(folder: Path, most_bytes: int) -> tuple[int, int]:
    """Remove the days not asked for longest until the rest fit; return the bytes and the number of those kept."""
    found = []
    for path in folder.glob(f"??/*/*{FACTS}"):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path.with_suffix(DATA).stat().st_size, path))
    found.sort(reverse=True)
    kept_bytes = days = 0
    for _, size, path in found:
        if kept_bytes + size > most_bytes:
            make_room(path)
            _log.info("exhaust.day_removed", file=path.name, bytes=size)
        else:
            kept_bytes += size
            days += 1
    return kept_bytes, days


def clear(folder: Path) -> None:
    """Remove what is left of builders that were killed long ago, data whose facts are gone, and hashes beyond so many
    of the days removed first."""
    _clear(folder)
    _forget(folder)


def _clear(folder: Path) -> None:
    before = time.time() - _LEFT_OVER_S
    for path in folder.glob("??/*/*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before and (
                path.suffix in (PART, PROGRESS, LOCK, WAITING)
                or (path.suffix == DATA and not path.with_suffix(FACTS).exists())
            ):
                path.unlink()


def _forget(folder: Path) -> None:
    gone = list(folder.glob(f"??/*/*{GONE}"))
    if len(gone) > _MAX_GONE:
        for path in sorted(gone, key=lambda path: path.stat().st_mtime)[:-_MAX_GONE]:
            path.unlink(missing_ok=True)
