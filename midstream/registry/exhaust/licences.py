"""Licences and their rights. A key is a random UUID, shown once and kept as its SHA-256."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Connection, Engine, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from midstream.exhaust.dataset import same_resource
from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such
from midstream.registry.exhaust.checks import (
    canonical_licence_key,
    check_expiry,
    check_licence_name,
    checked_resource,
    is_licence_name,
)
from midstream.registry.exhaust.datasets import existing_dataset
from midstream.registry.exhaust.errors import ExhaustError, NotThereError, TakenError
from midstream.registry.exhaust.tables import Licence, Right
from midstream.registry.states import State, state_of

_MAX_RIGHTS = 1_000
"""Of one licence."""


class RightInfo(NamedTuple):
    """A resource of a dataset that a licence may download."""

    dataset: str
    resource: str


@dataclass(frozen=True, slots=True)
class LicenceRow:
    """A licence as it may be shown: no key. Moments are UTC."""

    name: str
    rights: tuple[RightInfo, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""

    @property
    def state(self) -> State:
        """Whether its key is taken now."""
        return state_of(self.revoked_at, self.expires_at)


class Licences:
    """The licences of the registry. A change is seen by every process within one second.

    Every method may raise RegistryUnavailable.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, name: str, rights: Iterable[tuple[str, str]], expires_at: datetime | None = None) -> str:
        """Return the key of a new licence; it can be read this once. A revoked licence is made anew under its name.

        Args:
            name: unique, no secret.
            rights: datasets and resources, in any form that names them.
            expires_at: when it ends by itself.

        Raises:
            TakenError: there is a licence of this name that was not revoked.
            NotThereError: there is no such dataset.
            ExhaustError: a name, a resource or an expiry that cannot be, or too many rights.
        """
        check_licence_name(name)
        now = datetime.now(UTC)
        check_expiry(expires_at, now)
        key = str(uuid.uuid4())
        values = {
            "key_hash": hash_key(key),
            "created_at": now,
            "expires_at": expires_at,
            "revoked_at": None,
            "last_used_at": None,
        }
        try:
            with unavailable_as_such(), self._engine.begin() as connection:
                again = (
                    update(Licence)
                    .where(Licence.name == name, Licence.revoked_at.is_not(None))
                    .values(**values)
                    .returning(Licence.id)
                )
                licence_id = connection.scalar(again)
                if licence_id is None:
                    new = insert(Licence).values(name=name, **values).returning(Licence.id)
                    licence_id = connection.scalars(new).one()
                connection.execute(delete(Right).where(Right.licence_id == licence_id))
                given = sum(_grant(connection, licence_id, dataset, resource) for dataset, resource in rights)
                expires = expires_at and expires_at.isoformat()
                note(connection, "licence.create", f"licence/{name}", rights=given, expires=expires)
        except IntegrityError:
            raise TakenError(f"there is a licence {name} already: revoke it first, or take another name") from None
        return key

    def grant(self, name: str, rights: Iterable[tuple[str, str]]) -> int:
        """Give a licence rights, all or none; return how many were not there before.

        Args:
            name: the licence's.
            rights: datasets and resources, in any form that names them.

        Raises:
            NotThereError: there is no such licence or dataset.
            ExhaustError: the licence was revoked, would have too many rights, or a resource cannot be.
        """
        with unavailable_as_such(), self._engine.begin() as connection:
            licence_id = _id_of(connection, name)
            given = [list(right) for right in rights if _grant(connection, licence_id, *right)]
            if given:
                note(connection, "licence.grant", f"licence/{name}", rights=given)
            return len(given)

    def withdraw(self, name: str, rights: Iterable[tuple[str, str]]) -> None:
        """Take rights from a licence, all or none. See :meth:`grant`.

        Raises:
            NotThereError: there is no such licence or dataset, or the licence does not have one of the rights.
            ExhaustError: the licence was revoked, or a resource cannot be.
        """
        with unavailable_as_such(), self._engine.begin() as connection:
            licence_id = _id_of(connection, name)
            taken = []
            for dataset, resource in rights:
                if not _withdraw(connection, licence_id, dataset, resource):
                    raise NotThereError(f"licence {name} has no right to {resource} of {dataset}")
                taken.append([dataset, resource])
            note(connection, "licence.withdraw", f"licence/{name}", rights=taken)

    def revoke(self, key_or_name: str) -> str:
        """End a licence; return its name. Ending it again changes nothing.

        Raises:
            NotThereError: there is none of this key or name.
        """
        key = canonical_licence_key(key_or_name)
        # What was given may be the key of another deployment: it is not shown again.
        missing = NotThereError(f"there is no licence of this {'name' if key is None else 'key'}")
        if key is None and not is_licence_name(key_or_name):
            raise missing
        which = Licence.name == key_or_name if key is None else Licence.key_hash == hash_key(key)
        ended = func.coalesce(Licence.revoked_at, datetime.now(UTC))
        statement = update(Licence).where(which).values(revoked_at=ended).returning(Licence.name)
        with unavailable_as_such(), self._engine.begin() as connection:
            name = connection.scalar(statement)
            if name is not None:
                note(connection, "licence.revoke", f"licence/{name}")
        if name is None:
            raise missing
        return name

    def list(self, *, after: str = "", limit: int) -> Sequence[LicenceRow]:
        """Return ``limit`` licences at the most by name, those after ``after``, with their rights."""
        page = select(Licence).where(Licence.name > after).order_by(Licence.name).limit(limit).subquery()
        query = select(page, Right.dataset, Right.resource).outerjoin(Right, Right.licence_id == page.c.id)
        query = query.order_by(page.c.name, Right.dataset, Right.resource)
        found = []
        with unavailable_as_such(), self._engine.connect() as connection:
            for name, group in groupby(connection.execute(query), lambda row: row.name):
                rows = list(group)
                rights = tuple(RightInfo(row.dataset, row.resource) for row in rows if row.dataset is not None)
                one = rows[0]
                found.append(LicenceRow(name, rights, one.created_at, one.expires_at, one.revoked_at, one.last_used_at))
        return found


def hash_key(key: str) -> bytes:
    """Return what is kept of a canonical key, and looked for: 32 bytes. It is random: a plain hash tells nothing."""
    return hashlib.sha256(key.encode()).digest()


def _id_of(connection: Connection, name: str) -> int:
    """Return the id of a licence, whose rights nobody else changes until the transaction ends."""
    check_licence_name(name)
    query = select(Licence.id, Licence.revoked_at).where(Licence.name == name).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotThereError(f"there is no licence {name}")
    if row.revoked_at is not None:
        raise ExhaustError(f"licence {name} was revoked: create it anew")
    return int(row.id)


def _grant(connection: Connection, licence_id: int, dataset_name: str, resource: str) -> bool:
    dataset = existing_dataset(connection, dataset_name)
    key = checked_resource(dataset, resource)
    held = _rights(connection, licence_id, dataset.name)
    if any(rule == dataset.resource and same_resource(rule, one, key) for rule, one in held):
        return False
    of_licence = select(func.count()).select_from(Right).where(Right.licence_id == licence_id)
    if (connection.scalar(of_licence) or 0) >= _MAX_RIGHTS:
        raise ExhaustError(f"a licence has {_MAX_RIGHTS} rights at the most")
    values = {"licence_id": licence_id, "dataset": dataset.name, "rule": dataset.resource, "resource": key}
    connection.execute(insert(Right).values(values))
    return True


def _withdraw(connection: Connection, licence_id: int, dataset: str, resource: str) -> bool:
    key = checked_resource(existing_dataset(connection, dataset), resource)
    held = [right for right in _rights(connection, licence_id, dataset) if same_resource(*right, key)]
    for rule, one in held:
        of_dataset = and_(Right.licence_id == licence_id, Right.dataset == dataset)
        connection.execute(delete(Right).where(of_dataset, Right.rule == rule, Right.resource == one))
    return bool(held)


def _rights(connection: Connection, licence_id: int, dataset: str) -> Sequence[tuple[str, str]]:
    """Return rule and resource of each right to a dataset."""
    query = select(Right.rule, Right.resource).where(Right.licence_id == licence_id, Right.dataset == dataset)
    return [(row.rule, row.resource) for row in connection.execute(query)]
