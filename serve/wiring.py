"""Opens what the routes call, and makes the checks of ``/ready``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from aiokafka.errors import KafkaError

from midstream.clickhouse.client import ClickHouseError
from midstream.dimensions import VersionClock
from midstream.events.judge import Judge
from midstream.events.schemas import load_schemas
from midstream.ip_location import CHECK_EVERY_S, IpLocations
from midstream.kafka.dimension_publisher import DimensionPublisher
from midstream.kafka.groups import GroupStates
from midstream.kafka.schemas import look_up_in
from midstream.logs import get_logger
from midstream.rate_limiter import RateLimiter
from midstream.registry.auth import Authenticator
from midstream.registry.credentials import Credentials
from midstream.registry.fleet.cache import FlagsCache
from midstream.settings import Settings
from midstream.topics import GROUP_DEVICES, GROUP_STORE, GROUP_VALIDATE
from midstream.trace.stored import LOOK_UP_THREADS
from midstream.trace.tracer import Tracer
from serve.assignments.opened import open_assignments
from serve.control import Control
from serve.exhaust.service import open_exhaust
from serve.finder import DimensionFinder, LazyClient
from serve.fleet.store import ClickHouseStore, StoreCalls
from serve.fleet.watch import FleetWatch
from serve.readiness import CHECK_TIMEOUT_S, OK, Check, Readiness
from serve.register.devices import DeviceRegister
from serve.register.rows import find_rows
from serve.repeating import Repeating
from serve.services import Services
from serve.sync.service import open_syncs
from serve.validations import Validations

_log = get_logger(__name__)

_CHECK_TIMEOUT_MS = int(CHECK_TIMEOUT_S * 1000)
_GROUPS = {"validate": GROUP_VALIDATE, "store": GROUP_STORE, "devices": GROUP_DEVICES}
_MIGRATED = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'events'"


@asynccontextmanager
async def open_services(settings: Settings, accepting: Callable[[], bool] | None) -> AsyncIterator[Services]:
    """Open everything; Kafka and ClickHouse are connected to when they are first needed.

    Raises:
        midstream.events.schemas.SchemaError: a deployment's own schema cannot be used.
        midstream.settings.SettingsError: the file of IP locations cannot be used.
        midstream.registry.errors.RegistryUnavailable: the registry cannot be opened.
    """
    look_up_in(settings)
    schemas = load_schemas(settings.schemas)
    ip_locations = IpLocations(settings.ip_locations)
    async with AsyncExitStack() as stack:
        authenticator = Authenticator(settings)
        stack.callback(authenticator.close)
        credentials = Credentials(settings)
        stack.callback(credentials.close)
        publisher = DimensionPublisher(settings)
        stack.push_async_callback(publisher.close)
        judge = Judge(schemas, settings.max_event_bytes, settings.max_event_depth)
        validations = Validations(settings, judge)
        stack.callback(validations.close)
        finder = DimensionFinder(settings)
        stack.callback(finder.close)
        reader = LazyClient(settings, max_threads=LOOK_UP_THREADS)
        stack.callback(reader.close)
        tracer = Tracer(settings, judge, reader.rows)
        stack.push_async_callback(tracer.close)
        clock = VersionClock()
        device_register = DeviceRegister(settings, partial(find_rows, reader.rows), publisher, clock)
        device_register.start()
        stack.push_async_callback(device_register.close)
        refreshing = Repeating(
            "ip-locations", partial(asyncio.to_thread, ip_locations.refresh), CHECK_EVERY_S, at_once=False
        )
        refreshing.start()
        stack.push_async_callback(refreshing.close)
        control = Control(settings)
        stack.callback(control.close)
        device_cache = FlagsCache(settings)
        await device_cache.start()
        stack.push_async_callback(device_cache.close)
        device_store = StoreCalls(settings, ClickHouseStore(reader.rows))
        stack.callback(device_store.close)
        fleet_watch = FleetWatch(device_store)
        stack.push_async_callback(fleet_watch.close)
        assignments = await stack.enter_async_context(open_assignments(settings))
        exhaust = await stack.enter_async_context(open_exhaust(settings))
        syncs = stack.enter_context(open_syncs(settings))
        groups = GroupStates(settings, _CHECK_TIMEOUT_MS)
        stack.push_async_callback(groups.close)
        probe = LazyClient(settings, timeout_ms=_CHECK_TIMEOUT_MS)
        stack.callback(probe.close)
        probe_thread = ThreadPoolExecutor(1, thread_name_prefix="probe")
        stack.callback(partial(probe_thread.shutdown, wait=False, cancel_futures=True))

        checks: dict[str, Check] = {
            "kafka": partial(check_groups, groups),
            "clickhouse": partial(check_clickhouse, probe, probe_thread),
        }
        if accepting is not None:
            checks["collector"] = partial(check_collector, accepting)
        yield Services(
            settings=settings,
            authenticator=authenticator,
            register=credentials.register,
            publisher=publisher,
            finder=finder,
            tracer=tracer,
            validations=validations,
            accepting=accepting,
            readiness=Readiness(checks),
            control=control,
            device_cache=device_cache,
            device_store=device_store,
            fleet_watch=fleet_watch,
            assignments=assignments,
            exhaust=exhaust,
            device_register=device_register,
            ip_locations=ip_locations,
            clock=clock,
            rates=RateLimiter(settings.rate_limit_per_s),
            syncs=syncs,
        )


async def check_collector(accepting: Callable[[], bool]) -> Mapping[str, str]:
    """Tell whether the collector of this process takes batches."""
    return {"collector": OK if accepting() else "does not accept batches now"}


async def check_groups(groups: GroupStates) -> Mapping[str, str]:
    """Tell whether Kafka answers and each stage's consumer group has live members.

    A group that is just being rebalanced is not ready: nobody reads its partitions.
    """
    try:
        found = await groups.describe(list(_GROUPS.values()))
    except KafkaError as error:
        _log.warning("ready.kafka_away", error=f"{type(error).__name__}: {error}")
        return {"kafka": "away", **dict.fromkeys(_GROUPS, "unknown without Kafka")}
    return {"kafka": OK, **{part: _group_state(*found.get(group, ("", 0))) for part, group in _GROUPS.items()}}


def _group_state(state: str, members: int) -> str:
    if not members:
        return "no live worker"
    return OK if state == "Stable" else f"its workers are being given their partitions ({state})"


async def check_clickhouse(client: LazyClient, thread: ThreadPoolExecutor) -> Mapping[str, str]:
    """Tell whether ClickHouse answers and has its tables."""
    try:
        rows = await asyncio.get_running_loop().run_in_executor(thread, client.rows, _MIGRATED)
    except ClickHouseError as error:
        _log.warning("ready.clickhouse_away", error=str(error))
        return {"clickhouse": "away"}
    return {"clickhouse": OK if rows[0][0] else "its tables are not there: run `midstream migrate`"}
