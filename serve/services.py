"""What the routes work with, each behind the little of it that they need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import Request

from midstream.dimensions import Dimension, VersionClock
from midstream.ip_location import IpLocations
from midstream.rate_limiter import RateLimiter
from midstream.registry.academies.access import Access
from midstream.registry.auth import Principal
from midstream.registry.credentials import Issued
from midstream.registry.fleet.cache import FlagsCache
from midstream.settings import Settings
from midstream.trace.arrivals import Trace
from serve.assignments.store import AssignmentStore
from serve.control import Control
from serve.exhaust.service import Exhaust
from serve.fleet.store import StoreCalls
from serve.readiness import Readiness
from serve.register.devices import DeviceRegister
from serve.sync.service import Syncs
from serve.validations import Validations

MAX_BULK_LOADS = 4
"""Bulk loads that one process takes at once: each holds some MiB of rows on their way to Kafka."""


class Authenticates(Protocol):
    """Tells who sends a request."""

    async def authenticate(self, authorization: str | None) -> Principal:
        """Return the sender; raise Unauthorized or RegistryUnavailable."""


class BulkPublication(Protocol):
    """Rows on their way to Kafka."""

    async def add(self, rows: Sequence[Dimension]) -> None:
        """Take rows; wait while too many are under way; raise PublishError."""

    async def finish(self) -> None:
        """Wait until Kafka has acknowledged every row; raise PublishError."""

    @property
    def acknowledged(self) -> int:
        """Rows that Kafka has acknowledged so far."""


class PublishesDimensions(Protocol):
    """Writes rows to the topic ``dimensions``."""

    async def publish(self, row: Dimension) -> None:
        """Return when Kafka has acknowledged the row; raise PublishError."""

    def bulk(self) -> BulkPublication:
        """Begin many rows."""


class FindsDimensions(Protocol):
    """Reads rows from ClickHouse."""

    async def find(self, type_: str, id_: str) -> dict[str, Any] | None:
        """Return the row, None when there is none; raise ClickHouseError."""


class TracesEvents(Protocol):
    """Tells what became of events."""

    async def trace(
        self, mids: Sequence[str], *, with_event: bool = False, credential: str | None = None
    ) -> list[Trace]:
        """Return the trace of each mid; raise ClickHouseError or TracerBusyError."""


class FollowsFleet(Protocol):
    """Tells what the fleet's devices report."""

    def follow(self, longest_s: float) -> AsyncGenerator[bytes]:
        """Yield server-sent events for so long; raise ApiError before the first if none can be had now."""


MAX_STREAMS = 32
"""Streams of device states that one process has open at once: each asks ClickHouse twice a second."""


@dataclass(frozen=True, slots=True)
class Assignments:
    """Learners' records, and who may write and read them."""

    access: Access
    store: AssignmentStore


@dataclass(frozen=True)
class Services:
    """Everything the routes call. A test puts doubles in their place."""

    settings: Settings
    authenticator: Authenticates
    register: Callable[[str, str], Issued]
    """Blocks: :meth:`midstream.registry.credentials.Credentials.register`."""
    publisher: PublishesDimensions
    finder: FindsDimensions
    tracer: TracesEvents
    validations: Validations
    accepting: Callable[[], bool] | None
    """Whether a batch posted now would be durable; None where no collector shares the process."""
    readiness: Readiness
    control: Control
    """The fleet's control state."""
    device_cache: FlagsCache
    """Knows devices' keys."""
    device_store: StoreCalls
    """What is stored of devices' reports."""
    fleet_watch: FollowsFleet
    """Follows the whole fleet."""
    assignments: Assignments
    """Learners' records."""
    exhaust: Exhaust
    """Datasets for partners."""
    device_register: DeviceRegister
    """What devices said of themselves when they registered."""
    ip_locations: IpLocations
    """Where internet addresses are."""
    syncs: Syncs
    """Jobs of data sync."""
    rates: RateLimiter = field(default_factory=lambda: RateLimiter(0))
    """How often one credential calls."""
    clock: VersionClock = field(default_factory=VersionClock)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is told to stop: streams end."""
    stream_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_STREAMS))
    bulk_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_BULK_LOADS))


def services_of(request: Request) -> Services:
    """Return the services of the application that serves ``request``."""
    services: Services = request.app.state.services
    return services
