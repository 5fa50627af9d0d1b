"""Measures all of it as long as a process runs; nothing that goes wrong here ends that process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from midstream.disks import tell_disk
from midstream.logs import get_logger
from midstream.settings import Settings
from serve.facts.certificates import Certificates
from serve.facts.clickhouse import ClickHouseFacts
from serve.facts.kafka import KafkaFacts
from serve.facts.registry import RegistryFacts
from serve.repeating import Repeating

_REACH_EVERY_S = 5.0
_LOOK_EVERY_S = 30.0
_CERTIFICATES_EVERY_S = 3_600.0

_log = get_logger(__name__)


@asynccontextmanager
async def measured(settings: Settings) -> AsyncIterator[None]:
    """Measure while the block runs.

    Raises:
        RegistryError: the registry's URL cannot be used.
        SettingsError: the ClickHouse DSN is malformed.
    """
    async with AsyncExitStack() as stack:
        kafka = KafkaFacts(settings)
        stack.push_async_callback(kafka.close)
        clickhouse = ClickHouseFacts(settings)
        stack.callback(clickhouse.close)
        registry = RegistryFacts(settings)
        stack.callback(registry.close)
        certificates = Certificates(settings)

        async def home() -> None:
            await asyncio.to_thread(tell_disk, "home", settings.home)

        for name, look, every_s in (
            ("kafka", kafka.look, _REACH_EVERY_S),
            ("clickhouse-reach", clickhouse.reach, _REACH_EVERY_S),
            ("registry-reach", registry.reach, _REACH_EVERY_S),
            ("clickhouse", clickhouse.look, _LOOK_EVERY_S),
            ("registry", registry.look, _LOOK_EVERY_S),
            ("home", home, _LOOK_EVERY_S),
            ("certificates", certificates.look, _CERTIFICATES_EVERY_S),
        ):
            repeating = Repeating(f"facts-{name}", _kept_up(name, look), every_s)
            repeating.start()
            stack.push_async_callback(repeating.close)
        yield


def _kept_up(name: str, look: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def kept_up() -> None:
        try:
            await look()
        except Exception:  # noqa: BLE001  a task's top: the next look is due all the same
            _log.exception("facts.look_failed", of=name)

    return kept_up
