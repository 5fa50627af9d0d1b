"""Licences: given by operators, taken or given up by devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from midstream.registry.engine import unavailable_as_such
from midstream.registry.fleet.changes import note_device
from midstream.registry.fleet.errors import FleetError, NotAllowedError, NotThereError
from midstream.registry.fleet.giving import give
from midstream.registry.fleet.tables import License, LicenseReport

ACTIONS = ("add", "remove", "update")
STATES = ("inuse", "removed", "error")
MAX_WAITING = 1_000
"""Of one device, licences that it has said nothing of."""


@dataclass(frozen=True, slots=True)
class LicenseInfo:
    """A licence. ``state`` None: the device has said nothing of it."""

    id: str
    data: str
    signature: str
    action: str
    expires_at: datetime | None
    state: str | None
    error: str
    created_at: datetime
    reported_at: datetime | None


@dataclass(frozen=True, slots=True)
class LicenseStep:
    """What a device once said of a licence."""

    state: str
    error: str
    at: datetime


class Licenses:
    """The licences of the registry. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def give(
        self, device_id: str, data: str, signature: str, action: str, expires_at: datetime | None = None
    ) -> LicenseInfo:
        """Give a device a licence to add, remove or update.

        Raises:
            FleetError: no such action, or too many wait for the device.
            NotThereError: there is no such device.
        """
        if action not in ACTIONS:
            raise FleetError("action must be add, remove or update")
        row = License(
            id=str(uuid4()),
            device_id=device_id,
            data=data,
            signature=signature,
            action=action,
            expires_at=expires_at,
            state=None,
            error="",
            created_at=datetime.now(UTC),
        )
        waiting = select(func.count()).where(License.device_id == device_id, License.state.is_(None))
        give(self._engine, row, waiting, MAX_WAITING, "licences")
        return _info(row)

    def waiting(self, device_id: str) -> Sequence[LicenseInfo]:
        """Return what a device has said nothing of, oldest first."""
        query = select(License).where(License.device_id == device_id, License.state.is_(None))
        with unavailable_as_such(), Session(self._engine) as session:
            return [_info(row) for row in session.scalars(query.order_by(License.number))]

    def report(self, device_id: str, license_id: str, state: str, error: str = "") -> None:
        """Keep what a device says of a licence; it may say something else later.

        Raises:
            NotAllowedError: no state that a device may set.
            NotThereError: the device has no such licence.
        """
        if state not in STATES:
            raise NotAllowedError("Only allowed to set: inuse/removed/error")
        now = datetime.now(UTC)
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            row = session.scalar(
                select(License).where(License.id == license_id, License.device_id == device_id).with_for_update()
            )
            if row is None:
                raise NotThereError("The device has no such licence")
            if (row.state, row.error) == (state, error):
                return  # the answer to its first report was lost
            row.state, row.error, row.reported_at = state, error, now
            session.add(LicenseReport(license_id=license_id, state=state, error=error, at=now))
            note_device(session, device_id)

    def list_all(self, device_id: str, limit: int = 1_000) -> Sequence[LicenseInfo]:
        """Return the licences of a device, newest first."""
        query = select(License).where(License.device_id == device_id)
        with unavailable_as_such(), Session(self._engine) as session:
            return [_info(row) for row in session.scalars(query.order_by(License.number.desc()).limit(limit))]

    def history(self, device_id: str, license_id: str) -> Sequence[LicenseStep]:
        """Return all that a device said of a licence, oldest first.

        Raises:
            NotThereError: the device has no such licence.
        """
        owned = select(License.id).where(License.id == license_id, License.device_id == device_id)
        query = select(LicenseReport).where(LicenseReport.license_id == license_id)
        with unavailable_as_such(), Session(self._engine) as session:
            if session.scalar(owned) is None:
                raise NotThereError("The device has no such licence")
            rows = session.scalars(query.order_by(LicenseReport.number))
            return [LicenseStep(row.state, row.error, row.at) for row in rows]


def _info(row: License) -> LicenseInfo:
    return LicenseInfo(
        id=row.id,
        data=row.data,
        signature=row.signature,
        action=row.action,
        expires_at=row.expires_at,
        state=row.state,
        error=row.error,
        created_at=row.created_at,
        reported_at=row.reported_at,
    )
