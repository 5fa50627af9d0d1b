"""Opens what the steps of jobs work with; Kafka and ClickHouse are connected to when a job first needs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

from midstream.kafka.dimension_publisher import DimensionPublisher
from midstream.registry.engine import open_engine
from midstream.registry.sync.erasures import Erasures
from midstream.registry.sync.jobs import Jobs
from midstream.registry.sync.queue import Queue
from midstream.registry.sync.repair import RepairLease
from midstream.registry.sync.sources import Sources
from midstream.settings import Settings
from serve.finder import LazyClient
from serve.jobs.follows import GroupFollower
from serve.jobs.recheck import Recheck
from serve.jobs.repairer import Repairer
from serve.jobs.runner import Runner
from serve.jobs.source import ConfiguredSources
from serve.jobs.stored import StoredEvents
from serve.jobs.tools import Limits, Tools

_WAIT_MS = 5_000


@asynccontextmanager
async def open_runner(settings: Settings) -> AsyncIterator[tuple[Runner, Recheck]]:
    """Open a runner, and what looks after erased users beside it.

    Raises:
        midstream.registry.errors.RegistryError: the registry cannot be opened.
    """
    async with AsyncExitStack() as stack:
        engine = open_engine(settings, wait_ms=_WAIT_MS)
        stack.callback(engine.dispose)
        clickhouse = LazyClient(settings)
        stack.callback(clickhouse.close)
        publisher = DimensionPublisher(settings)
        stack.push_async_callback(publisher.close)
        follower = GroupFollower(settings)
        stack.push_async_callback(follower.close)
        queue = Queue(engine)
        patient = LazyClient(settings, timeout_ms=settings.sync_query_timeout_ms)
        stack.callback(patient.close)
        stored = StoredEvents(settings, patient, engine)

        def make_tools(owner: str) -> Tools:
            return Tools(
                sources=ConfiguredSources(settings),
                watermarks=Sources(engine),
                publisher=publisher,
                rows=clickhouse.rows,
                follows=follower,
                corrects=stored,
                erases=stored,
                erased=Erasures(settings, engine),
                answer=lambda job_id, response: queue.answer(job_id, owner, response),
                limits=Limits(settle_s=settings.sync_settle_ms / 1000),
            )

        def lines(sql: str) -> Iterator[bytes]:
            return patient.connected().stream(sql, {}, "JSONCompactEachRow", {})

        jobs = Jobs(engine)
        repairer = Repairer(RepairLease(engine), stored.repairs)
        recheck = Recheck(Erasures(settings, engine), jobs, publisher, lines)
        yield Runner(jobs, queue, make_tools, repairer), recheck
