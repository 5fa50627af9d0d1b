"""Opens what the routes of assignments call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from midstream.assignments.stored import RecordReader
from midstream.kafka.producer import Producer
from midstream.registry.academies.access import Access
from midstream.registry.academies.records import Records
from midstream.registry.academies.writers import Writers
from midstream.registry.engine import open_engine
from midstream.settings import Settings
from midstream.topics import ASSIGNMENT
from serve.assignments.announce import Announcer
from serve.assignments.commit import Committer
from serve.assignments.store import AssignmentStore
from serve.finder import LazyClient
from serve.services import Assignments

_REGISTRY_WAIT_MS = 5_000


@asynccontextmanager
async def open_assignments(settings: Settings, producer: Producer | None = None) -> AsyncIterator[Assignments]:
    """Open everything; ClickHouse and the registry are connected to when they are first needed.

    ``producer``: of the topic of writes; one of its own when not given.
    """
    async with AsyncExitStack() as stack:
        access = Access(settings)
        stack.callback(access.close)
        engine = open_engine(settings, wait_ms=_REGISTRY_WAIT_MS)
        stack.callback(engine.dispose)
        clickhouse = LazyClient(settings, max_threads=1)
        stack.callback(clickhouse.close)
        announcer = Announcer(
            settings, producer or Producer(settings, [ASSIGNMENT.name]), Writers(engine), clickhouse.rows
        )
        await announcer.start()
        stack.push_async_callback(announcer.close)
        reader = RecordReader(clickhouse.rows)
        committer = Committer(Records(engine), clickhouse, reader, announcer)
        stack.callback(committer.close)
        store = AssignmentStore(settings, committer, reader, clickhouse.rows)
        stack.callback(store.close)
        yield Assignments(access, store)
