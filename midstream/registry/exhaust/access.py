"""Who asks for a dataset, and what they may have: right within a second of every change."""

from __future__ import annotations

import hmac
import time
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Engine, Row, Select, bindparam, func, select

from midstream.exhaust.dataset import HEAD_CHARS, NAME, Dataset, resource_head, resource_key, same_resource
from midstream.metrics import EXHAUST_CACHE_ENTRIES
from midstream.registry.engine import unavailable_as_such
from midstream.registry.exhaust.checks import canonical_licence_key
from midstream.registry.exhaust.datasets import find_dataset
from midstream.registry.exhaust.errors import LoginError
from midstream.registry.exhaust.licences import hash_key
from midstream.registry.exhaust.revisions import RevisionInfo, newest_revision, read_revisions
from midstream.registry.exhaust.tables import Licence, Right
from midstream.registry.exhaust.uses import Uses
from midstream.registry.reads import Reads
from midstream.registry.remembered import Remembered
from midstream.settings import Settings

_REMEMBER_S = 1.0  # a change must be seen within this time
_MAX_REMEMBERED = 10_000  # some 300 bytes each
_MAX_DATASETS = 200  # up to some 30 KB each

_LICENCES = select(Licence.id, Licence.name, Licence.key_hash, Licence.expires_at, Licence.revoked_at)
_LICENCE = _LICENCES.where(Licence.key_hash == bindparam("hash"))
_LICENCE_BY_ID = _LICENCES.where(Licence.id == bindparam("id"))
_RIGHTS = select(Right.resource).where(
    Right.licence_id == bindparam("licence"),
    Right.dataset == bindparam("dataset"),
    Right.rule == bindparam("rule"),
    func.substr(Right.resource, 1, HEAD_CHARS) == bindparam("head"),
)


class LicenceInfo(NamedTuple):
    """Whose key a request carries."""

    id: int
    name: str


class ExhaustAccess:
    """What one process asks of datasets and licences. Belongs to one event loop.

    Every coroutine may raise RegistryUnavailable: it cannot be told now.
    """

    def __init__(self, settings: Settings) -> None:
        self._reads = Reads(settings, "exhaust-access")
        self._uses = Uses(settings)
        self._licences: Remembered[bytes, LicenceInfo] = _remembered("licence", _MAX_REMEMBERED)
        self._datasets: Remembered[str, Dataset | Literal[False]] = _remembered("dataset", _MAX_DATASETS)
        self._rights: Remembered[tuple[int, str, str, str], bool] = _remembered("right", _MAX_REMEMBERED)

    def close(self) -> None:
        """Close the connections; reads under way are not waited for."""
        self._reads.close()
        self._uses.close()
        for remembered in (self._licences, self._datasets, self._rights):
            remembered.clear()

    async def licence_of(self, key: str | None) -> LicenceInfo:
        """Return the licence of a key, in any letter case.

        Raises:
            LoginError: there is no key, or it is nobody's, was revoked or has expired.
        """
        if not key:
            raise LoginError("no licence key")
        canonical = canonical_licence_key(key)
        if canonical is None:
            raise LoginError("the licence key is no UUID")
        digest = hash_key(canonical)
        held = self._licences.get(digest)
        if held is not None:
            return held
        began, now = time.monotonic(), datetime.now(UTC)
        row = await self._reads.read(lambda engine: _read_licence(engine, _LICENCE, {"hash": digest}))
        if row is None or not hmac.compare_digest(row.key_hash, digest):
            raise LoginError("the licence key is nobody's")
        left_s = _left_s(row, now)
        licence = LicenceInfo(row.id, row.name)
        self._licences.put(digest, licence, began + min(left_s, _REMEMBER_S))
        return licence

    async def licence_by_id(self, licence_id: int) -> LicenceInfo:
        """Return a licence whose request is at hand, as it is now.

        Raises:
            LoginError: it was revoked or has expired.
        """
        row = await self._reads.read(lambda engine: _read_licence(engine, _LICENCE_BY_ID, {"id": licence_id}))
        if row is None:
            raise LoginError("the licence is not there")
        _left_s(row, datetime.now(UTC))
        return LicenceInfo(row.id, row.name)

    async def dataset_for(self, licence: LicenceInfo, dataset_name: str, resource: str) -> tuple[Dataset, str] | None:
        """Return a dataset and the canonical key of a resource that a licence may download.

        Returns:
            None when the licence has no right to it, or there is no such dataset, or there can be no such resource.
        """
        dataset = await self._dataset(dataset_name)
        key = resource_key(dataset, resource) if dataset else None
        if not dataset or key is None:
            return None
        # The rule too: a dataset may have been declared anew since it was remembered.
        wanted = (licence.id, dataset.name, dataset.resource, key)
        held = self._rights.get(wanted)
        if held is None:
            began = time.monotonic()
            held = await self._reads.read(lambda engine: _has_right(engine, *wanted))
            self._rights.put(wanted, held, began + _REMEMBER_S)
        return (dataset, key) if held else None

    async def revisions(
        self, dataset: Dataset, key: str, first_day: date, last_day: date
    ) -> Mapping[date, tuple[RevisionInfo, ...]]:
        """Return the revisions of the days (UTC, inclusive) that have any, each day's oldest first."""
        return await self._reads.read(lambda engine: read_revisions(engine, dataset, key, first_day, last_day))

    async def newest_revision(self) -> int:
        """Return the number of the revision that was made last; 0: there is none."""
        return await self._reads.read(newest_revision)

    async def newest_revisions(self, dataset_name: str, key: str, days: Collection[date]) -> Mapping[date, int]:
        """Return the number of each day's newest revision, 0 where there is none; nothing of a dataset that is gone."""
        dataset = await self._dataset(dataset_name)
        if dataset is None:
            return {}
        found = await self.revisions(dataset, key, min(days), max(days))
        return {day: found[day][-1].number if day in found else 0 for day in days}

    async def retention_days(self, dataset_name: str) -> int:
        """Return how long a dataset's days can be downloaded; 0: for ever, or there is no such dataset."""
        dataset = await self._dataset(dataset_name)
        return 0 if dataset is None else dataset.retention_days

    def note_use(self, licence: LicenceInfo) -> None:
        """Have it written when a licence was last used, to the minute. Never waits, never raises."""
        self._uses.note(licence.id)

    async def _dataset(self, name: str) -> Dataset | None:
        if NAME.fullmatch(name) is None:
            return None
        held = self._datasets.get(name)
        if held is None:
            began = time.monotonic()
            held = await self._reads.read(lambda engine: _read_dataset(engine, name)) or False
            self._datasets.put(name, held, began + _REMEMBER_S)
        return held or None


def _remembered(kind: str, most: int) -> Any:
    return Remembered(most, EXHAUST_CACHE_ENTRIES.labels(kind))


def _read_licence(
    engine: Engine, query: Select[*tuple[Any, ...]], which: dict[str, Any]
) -> Row[*tuple[Any, ...]] | None:
    with unavailable_as_such(), engine.connect() as connection:
        return connection.execute(query, which).one_or_none()


def _left_s(row: Row[*tuple[Any, ...]], now: datetime) -> float:
    """Return for how long a licence is good, without an end what it is remembered for; raise LoginError if not now."""
    if row.revoked_at is not None:
        raise LoginError(f"licence {row.name} was revoked")
    left_s: float = _REMEMBER_S if row.expires_at is None else (row.expires_at - now).total_seconds()
    if left_s <= 0:
        raise LoginError(f"licence {row.name} has expired")
    return left_s


def _read_dataset(engine: Engine, name: str) -> Dataset | None:
    with unavailable_as_such(), engine.connect() as connection:
        return find_dataset(connection, name)


def _has_right(engine: Engine, licence_id: int, dataset: str, rule: str, key: str) -> bool:
    wanted = {"licence": licence_id, "dataset": dataset, "rule": rule, "head": resource_head(key)}
    with unavailable_as_such(), engine.connect() as connection:
        return any(same_resource(rule, one, key) for one in connection.scalars(_RIGHTS, wanted))
