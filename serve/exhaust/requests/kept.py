"""The files of finished requests: links to days' files, which stay there when the days themselves are removed.

A request's folder is named by its id and by the entity tag of its archive, so that what was built before a revision
is never taken for what was built after it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from midstream.exhaust.manifest import read_sidecar
from serve.exhaust.days.builder.job import Job
from serve.exhaust.days.shelf import DATA, FACTS, Built

_FOLDER = "requests"
_TAG_CHARS = 16


class Kept:
    """All such folders of this machine. Every method blocks, and may raise OSError."""

    def __init__(self, exhaust_folder: Path) -> None:
        self._folder = exhaust_folder / _FOLDER

    def keep(self, request_id: str, tag: str, job: Job, built: Built) -> Built:
        """Keep a day's file; return it as it is kept.

        Raises:
            FileNotFoundError: the day was removed meanwhile.
        """
        folder = self._of(request_id, tag)
        folder.mkdir(parents=True, exist_ok=True)
        data, facts = _paths(folder, job)
        for source, target in ((built.path, data), (built.path.with_suffix(FACTS), facts)):
            with suppress(FileExistsError):  # of a builder that died: the same tag, the same bytes
                os.link(source, target)
        return Built(data, built.facts)

    def days(self, request_id: str, tag: str, jobs: Sequence[Job]) -> list[Built] | None:
        """Return the files of a request's days; None when one of them is not there."""
        folder = self._of(request_id, tag)
        found = []
        for job in jobs:
            data, facts_path = _paths(folder, job)
            try:
                facts = read_sidecar(facts_path.read_bytes())
                if data.stat().st_size != facts.bytes:
                    return None
            except (FileNotFoundError, ValueError):
                return None
            found.append(Built(data, facts))
        return found

    def remove(self, request_id: str, tag: str) -> None:
        """Remove what is kept of a request's archive; who reads it goes on reading."""
        shutil.rmtree(self._of(request_id, tag), ignore_errors=True)

    def names(self) -> list[str]:
        """Return the names of all folders, see :meth:`owner` and :meth:`is_of`."""
        try:
            return os.listdir(self._folder)
        except FileNotFoundError:
            return []

    @staticmethod
    def owner(name: str) -> str:
        """Return the id of the request that a folder belongs to."""
        return name.partition(".")[0]

    def is_of(self, name: str, tag: str | None) -> bool:
        """Whether a folder holds the archive of this tag of its request."""
        return tag is not None and self._of(self.owner(name), tag).name == name

    def remove_folder(self, name: str) -> None:
        """Remove a folder."""
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def _of(self, request_id: str, tag: str) -> Path:
        return self._folder / f"{request_id}.{tag[1 : 1 + _TAG_CHARS]}"  # the tag is in quotes


def _paths(folder: Path, job: Job) -> tuple[Path, Path]:
    stem = f"{job.day}.{job.revision}"
    return folder / f"{stem}{DATA}", folder / f"{stem}{FACTS}"
