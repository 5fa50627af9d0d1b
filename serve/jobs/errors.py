"""How a run of a job ends, but well."""

from __future__ import annotations

from enum import Enum


class Why(Enum):
    """Why a job is not gone on with."""

    CANCELLED = "cancelled"
    """It was asked to end."""
    RELEASED = "released"
    """This process was told to stop."""
    LOST = "lost"
    """Another process has it, or may have it."""


class StoppedError(Exception):
    """The job is not gone on with, at a point where that is safe."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


class FailedError(Exception):
    """The job fails for good; the message is for who asked."""


class TryAgainError(Exception):
    """This try of the job failed; the message is for who asked."""


class AwayError(Exception):
    """A part of the pipeline is away, or behind: the job waits for it."""
