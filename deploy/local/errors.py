"""What can go wrong with a local pipeline, in words for the one who started it."""

from __future__ import annotations


class LocalError(Exception):
    """The pipeline cannot start or go on; the message says why and what to do."""


class StopRequestedError(Exception):
    """Ctrl-C or SIGTERM came while the pipeline was starting."""
