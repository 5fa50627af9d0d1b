"""Kinds of devices: a maker's firmware holds the hardware key of one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such
from midstream.registry.fleet.errors import FleetError, NotThereError
from midstream.registry.fleet.keys import hash_key, new_key
from midstream.registry.fleet.tables import Model

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""A model's name: it stands in URLs and folders."""

MAX_INTERVAL_S = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as it may be shown."""

    name: str
    interval_s: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model, and the key that its firmware registers with: shown this once."""

    name: str
    hardware_key: str = field(repr=False)


class Models:
    """The models of the registry. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, name: str, interval_s: int) -> NewModel:
        """Create a model whose devices report every ``interval_s`` seconds.

        Raises:
            FleetError: the name is taken or cannot be, or the interval cannot be.
        """
        if NAME_PATTERN.fullmatch(name) is None:
            raise FleetError("a model's name takes 1 to 128 letters, digits and . _ -, a letter or digit first")
        if not 1 <= interval_s <= MAX_INTERVAL_S:
            raise FleetError(f"an interval takes 1 to {MAX_INTERVAL_S} seconds")
        key = new_key()
        row = Model(name=name, hardware_key_hash=hash_key(key), interval_s=interval_s, created_at=datetime.now(UTC))
        try:
            with unavailable_as_such(), Session(self._engine) as session, session.begin():
                session.add(row)
                note(session, "model.create", f"model/{name}", interval_s=interval_s)
        except IntegrityError:
            raise FleetError(f"there is a model {name} already") from None
        return NewModel(name, key)

    def renew_key(self, name: str) -> NewModel:
        """Give a model another hardware key; firmware with the old one can register no more devices.

        Raises:
            NotThereError: there is no such model.
        """
        key = new_key()
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            row = session.scalar(select(Model).where(Model.name == name).with_for_update())
            if row is None:
                raise NotThereError(f"there is no model {name}")
            row.hardware_key_hash = hash_key(key)
            note(session, "model.renew_key", f"model/{name}")
        return NewModel(name, key)

    def list_all(self) -> list[ModelInfo]:
        """Return all models by name."""
        with unavailable_as_such(), Session(self._engine) as session:
            rows = session.scalars(select(Model).order_by(Model.name))
            return [ModelInfo(row.name, row.interval_s, row.created_at) for row in rows]
