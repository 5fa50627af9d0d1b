"""Repairs stored events while no job runs."""

from __future__ import annotations

import asyncio
import contextlib

from midstream.clickhouse.client import ClickHouseError
from midstream.logs import get_logger
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.sync.repair import RepairLease
from serve.jobs.repair import Repairs

_log = get_logger(__name__)


class Repairer:
    """Belongs to one event loop."""

    def __init__(self, lease: RepairLease, repairs: Repairs, lease_s: float = 30.0) -> None:
        self._lease = lease
        self._repairs = repairs
        self._lease_s = lease_s

    async def if_due(self, owner: str) -> None:
        """Repair when it is time and nobody else works on stored events; its own trouble it logs.

        Raises:
            RegistryUnavailable: the registry is away.
        """
        if not self._repairs.is_due or not await asyncio.to_thread(self._lease.take, owner, self._lease_s):
            return
        keeping = asyncio.create_task(self._keep(owner), name="repair-lease")
        try:
            await asyncio.to_thread(self._repairs.if_due)
        except ClickHouseError as error:
            _log.warning("dimensions.unrepaired", error=str(error)[:500])
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await asyncio.to_thread(self._lease.give_back, owner)

    async def _keep(self, owner: str) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 10)
            with contextlib.suppress(RegistryUnavailable):
                await asyncio.to_thread(self._lease.renew, owner, self._lease_s)
