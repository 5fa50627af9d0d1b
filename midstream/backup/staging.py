"""The local engine writes backups below one folder of its own: links there lead to where the operator wants them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from midstream.backup.errors import BackupError
from midstream.backup.manifest import CLICKHOUSE
from midstream.settings import Settings


@contextlib.contextmanager
def staged(settings: Settings, folders: Mapping[str, Path]) -> Iterator[None]:
    """Let the local engine reach these backups' folders under their ids.

    Raises:
        BackupError: ``BAD_FOLDER``.
    """
    root = settings.engine_backups_folder
    links = {root / id_: folder.resolve() for id_, folder in folders.items()}
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for link, folder in links.items():
            link.unlink(missing_ok=True)
            link.symlink_to(folder, target_is_directory=True)
        yield
    except OSError as error:
        raise BackupError("BAD_FOLDER", f"{error.filename or root} cannot be used: {error.strerror}") from None
    finally:
        for link in links:
            with contextlib.suppress(OSError):
                link.unlink(missing_ok=True)


def local_destination(id_: str) -> str:
    """Return where the local engine finds the backup of an id, as BACKUP names it."""
    return f"Disk('backups', '{id_}/{CLICKHOUSE}')"
