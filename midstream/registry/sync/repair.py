"""The lease of who repairs stored events, as repairs and jobs must not overlap."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, and_, or_, select, update

from midstream.registry.academies.upserts import insert
from midstream.registry.engine import unavailable_as_such
from midstream.registry.exhaust.locks import lock
from midstream.registry.sync.tables import SyncJob, SyncRepair

_ID = 1


class RepairLease:
    """Every method blocks and may raise RegistryUnavailable."""

    def __init__(self, engine: Engine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._now = now

    def take(self, owner: str, lease_s: float) -> bool:
        """Return whether ``owner`` may repair now: nobody else does, and nobody runs a job."""
        now = self._now()
        with unavailable_as_such(), self._engine.begin() as connection:
            lock(connection, SyncJob)
            if connection.scalar(select(SyncJob.id).where(SyncJob.lease_until > now).limit(1)) is not None:
                return False
            connection.execute(insert(self._engine, SyncRepair).values(id=_ID).on_conflict_do_nothing())
            is_free = or_(SyncRepair.lease_until.is_(None), SyncRepair.lease_until <= now)
            taken = update(SyncRepair).where(SyncRepair.id == _ID, is_free)
            values = {"lease_owner": owner, "lease_until": now + timedelta(seconds=lease_s)}
            return bool(connection.execute(taken.values(**values)).rowcount)

    def renew(self, owner: str, lease_s: float) -> bool:
        """Return whether it is ``owner``'s still."""
        return self._set(owner, {"lease_until": self._now() + timedelta(seconds=lease_s)})

    def give_back(self, owner: str) -> None:
        """Let others repair, and run jobs."""
        self._set(owner, {"lease_owner": None, "lease_until": None})

    def free(self) -> None:
        """Take it from whoever has it, who is no more."""
        with unavailable_as_such(), self._engine.begin() as connection:
            connection.execute(update(SyncRepair).values(lease_owner=None, lease_until=None))

    def _set(self, owner: str, values: dict[str, datetime | None]) -> bool:
        owned = and_(SyncRepair.id == _ID, SyncRepair.lease_owner == owner)
        with unavailable_as_such(), self._engine.begin() as connection:
            return bool(connection.execute(update(SyncRepair).where(owned).values(**values)).rowcount)
