"""How far the source of each type has been read, in the source's own terms."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Engine, select

from midstream.registry.academies.upserts import insert
from midstream.registry.engine import unavailable_as_such
from midstream.registry.sync.tables import SyncSource


class Sources:
    """Every method may raise RegistryUnavailable, and blocks."""

    def __init__(self, engine: Engine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._now = now

    def watermark(self, type_: str) -> str | None:
        """Return the watermark of the last sync that read all there was of a type; None without one."""
        with unavailable_as_such(), self._engine.connect() as connection:
            return connection.scalar(select(SyncSource.watermark).where(SyncSource.type == type_))

    def note(self, type_: str, watermark: str) -> None:
        """Note that all up to a watermark is published."""
        values = {"watermark": watermark, "synced_at": self._now()}
        noted = insert(self._engine, SyncSource).values(type=type_, **values)
        with unavailable_as_such(), self._engine.begin() as connection:
            connection.execute(noted.on_conflict_do_update(index_elements=["type"], set_=values))
