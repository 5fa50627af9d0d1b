"""Why a backup or a restore does not go on."""

from __future__ import annotations


class BackupError(Exception):
    """It cannot be done; the message says why and what to do. ``code`` names the reason for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
