"""While a backup is made nobody works on stored events: the lease of the jobs is held.

A copy of the tables in the middle of an erasure would hold events twice, and one in the middle of a correction some
events with the new copies and others with the old ones.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator

from sqlalchemy import Engine

from midstream.backup.errors import BackupError
from midstream.clickhouse.client import ClickHouse
from midstream.correct.overlay import Overlay
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.sync.repair import RepairLease

_LEASE_S = 60.0
_POLL_S = 0.5


class Fence:
    """The lease, as long as it is held."""

    def __init__(self) -> None:
        self._until = time.monotonic() + _LEASE_S

    def renewed(self, asked_at: float) -> None:
        """Note that the lease was renewed by a call that began then."""
        self._until = asked_at + _LEASE_S

    def check(self) -> None:
        """See that it is held still.

        Raises:
            BackupError: ``FENCE_LOST``: somebody may have corrected or erased events meanwhile.
        """
        if time.monotonic() >= self._until:
            raise BackupError("FENCE_LOST", "the registry did not answer for too long: begin the backup again")


@contextlib.contextmanager
def fenced(engine: Engine, clickhouse: ClickHouse, wait_s: float) -> Iterator[Fence]:
    """Keep jobs and repairs out; those under way are waited for.

    Raises:
        BackupError: ``JOB_RUNS``, ``LEFT_OVER``: a job that died must be brought to its end first.
        RegistryUnavailable, ClickHouseError: one of them is away.
    """
    lease, owner = RepairLease(engine), f"backup {uuid.uuid4()}"
    deadline = time.monotonic() + wait_s
    while not lease.take(owner, _LEASE_S):
        if time.monotonic() >= deadline:
            raise BackupError(
                "JOB_RUNS",
                f"a job still works on stored events after {wait_s:.0f} s: wait for it (`midstream jobs list`)",
            )
        time.sleep(_POLL_S)
    fence, ended = Fence(), threading.Event()

    def keep() -> None:
        while not ended.wait(_LEASE_S / 10):
            asked_at = time.monotonic()
            with contextlib.suppress(RegistryUnavailable):
                if not lease.renew(owner, _LEASE_S):
                    return
                fence.renewed(asked_at)

    keeper = threading.Thread(target=keep, name="backup-fence", daemon=True)
    keeper.start()
    try:
        type_, erasure = Overlay(clickhouse, clickhouse.is_cluster).left_over()
        if type_ or erasure:
            raise BackupError(
                "LEFT_OVER", "a correction or an erasure was broken off: start `jobs`, which brings it to its end"
            )
        yield fence
    finally:
        ended.set()
        keeper.join(_LEASE_S)
        with contextlib.suppress(RegistryUnavailable):
            lease.give_back(owner)
