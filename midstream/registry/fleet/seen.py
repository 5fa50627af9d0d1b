"""How many devices report, and how many have fallen silent."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Engine, func, select

from midstream.registry.engine import unavailable_as_such
from midstream.registry.fleet.tables import Device, Model

GRACE = timedelta(seconds=2)
"""Beyond its interval: reports come with jitter, and when a device was seen is kept once a second."""

OFFLINE_INTERVALS = 2
"""Silent for longer than so many of its intervals, a device is offline, whatever it said last."""


class Seen(NamedTuple):
    """Devices that reported within some time."""

    reporting: int
    silent: int


def count_seen(engine: Engine, now: datetime, within: timedelta) -> Seen:
    """Count the devices that reported after ``now - within`` and are not revoked.

    Silent is one that is offline, whatever it said last: see :data:`OFFLINE_INTERVALS`. Two counts a distinct interval,
    of which there are few; no row leaves the registry.

    Raises:
        RegistryUnavailable: the registry does not answer.
    """
    reporting = known = 0
    with unavailable_as_such(), engine.connect() as connection:
        for interval_s in connection.execute(select(Model.interval_s).distinct()).scalars().all():
            count = (
                select(func.count())
                .select_from(Device)
                .join(Model)
                .where(Model.interval_s == interval_s, Device.revoked_at.is_(None))
            )
            patience = timedelta(seconds=OFFLINE_INTERVALS * interval_s) + GRACE
            known += connection.execute(count.where(Device.last_seen_at > now - max(within, patience))).scalar_one()
            reporting += connection.execute(count.where(Device.last_seen_at >= now - patience)).scalar_one()
    return Seen(reporting, max(known - reporting, 0))


def is_there(engine: Engine) -> None:
    """Read one row of any table of ours.

    Raises:
        RegistryUnavailable: the registry does not answer, or has no tables.
    """
    with unavailable_as_such(), engine.connect() as connection:
        connection.execute(select(Model.id).limit(1)).first()
