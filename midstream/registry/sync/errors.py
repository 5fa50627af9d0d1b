"""What the registry of jobs refuses."""

from __future__ import annotations

from midstream.registry.errors import RegistryError


class JobError(RegistryError):
    """What was asked of a job cannot be; the message says why."""


class NoJobError(JobError):
    """There is no such job."""


class EndedError(JobError):
    """The job cannot be cancelled: it has ended, or goes on to its end."""


class TooManyJobsError(JobError):
    """As many jobs wait as may."""
