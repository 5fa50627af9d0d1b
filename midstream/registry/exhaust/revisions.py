"""Revisions: why a day that was closed is built anew, and given under a new ETag."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Engine, func, insert, or_, select

from midstream.exhaust.dataset import HEAD_CHARS, Dataset, resource_head, same_resource
from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such
from midstream.registry.exhaust.checks import check_reason, checked_resource
from midstream.registry.exhaust.errors import ExhaustError
from midstream.registry.exhaust.locks import lock
from midstream.registry.exhaust.tables import Revision

_MAX_DAYS = 3_660
"""Of one call."""


class RevisionInfo(NamedTuple):
    """Why a day was built anew."""

    number: int
    at: datetime
    """UTC."""
    reason: str


class Revisions:
    """The revisions of the registry. A new one is seen by every process at once.

    Every method may raise RegistryUnavailable.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, dataset: Dataset, resource: str | None, first_day: date, last_day: date, reason: str) -> int:
        """Have days built anew; return how many.

        Args:
            dataset: whose.
            resource: of this resource, in any form that names it; None: of all.
            first_day: UTC.
            last_day: inclusive.
            reason: what the manifest says, to partners too.

        Raises:
            ExhaustError: a resource or a reason that cannot be, or days in the wrong order, or too many.
        """
        key = None if resource is None else checked_resource(dataset, resource)
        check_reason(reason)
        count = (last_day - first_day).days + 1
        if not 0 < count <= _MAX_DAYS:
            raise ExhaustError(f"from the first day to the last are 1 to {_MAX_DAYS} days")
        facts = {"dataset": dataset.name, "resource": key, "reason": reason, "at": datetime.now(UTC)}
        rows = [facts | {"day": first_day + timedelta(days=number)} for number in range(count)]
        with unavailable_as_such(), self._engine.begin() as connection:
            lock(connection, Revision)  # so that a higher number is never seen before a lower one
            connection.execute(insert(Revision), rows)
            days = [first_day.isoformat(), last_day.isoformat()]
            note(connection, "dataset.revise", f"dataset/{dataset.name}", days=days, reason=reason)
        return count

    def of(
        self, dataset: Dataset, key: str, first_day: date, last_day: date
    ) -> Mapping[date, tuple[RevisionInfo, ...]]:
        """Return the revisions of the days that have any. See :func:`read_revisions`."""
        return read_revisions(self._engine, dataset, key, first_day, last_day)


def newest_revision(engine: Engine) -> int:
    """Return the number of the revision that was made last; 0: there is none."""
    with unavailable_as_such(), engine.connect() as connection:
        return connection.scalar(select(func.max(Revision.id))) or 0


def read_revisions(
    engine: Engine, dataset: Dataset, key: str, first_day: date, last_day: date
) -> Mapping[date, tuple[RevisionInfo, ...]]:
    """Return the revisions of the days that have any, each day's oldest first.

    Args:
        engine: the registry's.
        dataset: whose.
        key: a resource's, canonical; revisions of all resources count too.
        first_day: UTC.
        last_day: inclusive.
    """
    query = (
        select(Revision.id, Revision.day, Revision.resource, Revision.at, Revision.reason)
        .where(
            Revision.dataset == dataset.name,
            Revision.day.between(first_day, last_day),
            or_(Revision.resource.is_(None), func.substr(Revision.resource, 1, HEAD_CHARS) == resource_head(key)),
        )
        .order_by(Revision.id)
    )
    found: dict[date, list[RevisionInfo]] = {}
    with unavailable_as_such(), engine.connect() as connection:
        for row in connection.execute(query):
            if row.resource is None or same_resource(dataset.resource, row.resource, key):
                found.setdefault(row.day, []).append(RevisionInfo(row.id, row.at, row.reason))
    return {day: tuple(revisions) for day, revisions in found.items()}
