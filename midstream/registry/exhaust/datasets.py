"""Declared datasets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, exists, func, insert, select, update

from midstream.exhaust.dataset import D001, NAME, Dataset, DatasetError, read_declaration, to_declaration
from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.exhaust.errors import ExhaustError, NotThereError
from midstream.registry.exhaust.locks import lock
from midstream.registry.exhaust.tables import DeclaredDataset, Right

Outcome = Literal["created", "changed", "unchanged"]

_DEFAULTS = {D001.name: D001}
_MAX_DATASETS = 1_000


class Datasets:
    """The datasets of the registry. A change is seen by every process within one second.

    Every method may raise RegistryUnavailable.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def declare(self, dataset: Dataset) -> Outcome:
        """Create or replace a dataset; declaring the same again changes nothing.

        Raises:
            ExhaustError: licences have rights by another rule for its resources, or there are too many datasets.
        """
        declaration = to_declaration(dataset)
        now = datetime.now(UTC)
        with unavailable_as_such(), self._engine.begin() as connection:
            lock(connection, DeclaredDataset)
            known = find_dataset(connection, dataset.name)
            if known == dataset:
                return "unchanged"
            if _other_rights(connection, dataset):
                raise ExhaustError(
                    f"licences have rights to {dataset.name} by another rule than {dataset.resource}: "
                    "withdraw them first, or declare it under another name"
                )
            values = {"declaration": declaration, "declared_at": now}
            row = DeclaredDataset.name == dataset.name
            if not connection.execute(update(DeclaredDataset).where(row).values(**values)).rowcount:
                if (connection.scalar(select(func.count()).select_from(DeclaredDataset)) or 0) >= _MAX_DATASETS:
                    raise ExhaustError(f"there are {_MAX_DATASETS} datasets already, which is the most")
                connection.execute(insert(DeclaredDataset).values(name=dataset.name, **values))
            note(connection, "dataset.declare", f"dataset/{dataset.name}", is_new=known is None)
        return "changed" if known else "created"

    def get(self, name: str) -> Dataset:
        """Return a dataset.

        Raises:
            NotThereError: there is none of this name.
        """
        with unavailable_as_such(), self._engine.connect() as connection:
            return existing_dataset(connection, name)

    def list(self) -> Sequence[Dataset]:
        """Return all datasets by name, at most 1,001."""
        with unavailable_as_such(), self._engine.connect() as connection:
            rows = connection.execute(select(DeclaredDataset.name, DeclaredDataset.declaration))
            found = _DEFAULTS | {name: _read(declaration) for name, declaration in rows}
        return [found[name] for name in sorted(found)]


def find_dataset(connection: Connection, name: str) -> Dataset | None:
    """Return the dataset of a name, declared or there by default; None when there is none.

    Raises:
        RegistryUnavailable: this version cannot read its declaration.
    """
    if NAME.fullmatch(name) is None:
        return None
    declaration = connection.scalar(select(DeclaredDataset.declaration).where(DeclaredDataset.name == name))
    return _DEFAULTS.get(name) if declaration is None else _read(declaration)


def existing_dataset(connection: Connection, name: str) -> Dataset:
    """Return the dataset of a name. See :func:`find_dataset`.

    Raises:
        NotThereError: there is none.
    """
    dataset = find_dataset(connection, name)
    if dataset is None:
        raise NotThereError(
            "there is no such dataset" if NAME.fullmatch(name) is None else f"there is no dataset {name}"
        )
    return dataset


def _read(declaration: dict[str, Any]) -> Dataset:
    try:
        return read_declaration(declaration)
    except DatasetError as error:
        raise RegistryUnavailable(f"the registry holds a dataset of another version of Midstream: {error}") from None


def _other_rights(connection: Connection, dataset: Dataset) -> bool:
    found = exists().where(Right.dataset == dataset.name, Right.rule != dataset.resource)
    return bool(connection.scalar(select(found)))
