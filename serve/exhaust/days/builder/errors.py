"""Why a day's file was not built."""

from __future__ import annotations


class BuildError(Exception):
    """The day cannot be built now; the message says why."""


class AbandonedError(Exception):
    """Nobody waits for the day any more."""
