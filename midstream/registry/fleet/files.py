"""Files for the devices of a model: firmware above all. Their bytes are kept by whoever calls this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

import xxhash
from semver import Version
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such
from midstream.registry.fleet.changes import note_model
from midstream.registry.fleet.errors import FleetError, NotThereError
from midstream.registry.fleet.tables import Device, File, Model

FIRMWARE = "firmware"
MAX_FILES = 1_000
"""Of one model."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file of a model."""

    id: str
    name: str
    description: str
    file_type: str
    version: str
    checksum: str
    """SHA-256, hex."""
    signature: str
    size_bytes: int
    rollout_percent: int
    created_at: datetime


class Offered(Protocol):
    """What decides whether a device is offered a file, and which is the newest."""

    @property
    def id(self) -> str:
        """Of the file."""

    @property
    def version(self) -> str:
        """A semantic version, if it is firmware."""

    @property
    def rollout_percent(self) -> int:
        """Of the model's devices, how many are offered it."""


_Offered = TypeVar("_Offered", bound=Offered)


def is_offered(file: Offered, device_id: str) -> bool:
    """Whether a device is among those that are offered a file: once it is, it stays so while the share grows."""
    return bool(xxhash.xxh3_64_intdigest(f"{file.id}/{device_id}".encode()) % 100 < file.rollout_percent)


def newest_firmware(files: Iterable[_Offered], device_id: str) -> _Offered | None:
    """Return, of firmware files, the newest that a device is offered; None for none."""
    offered = [file for file in files if is_offered(file, device_id)]
    return max(offered, key=lambda file: (Version.parse(file.version), file.id), default=None)


class Files:
    """The files of the registry. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def check(self, model: str, file_type: str, version: str, rollout_percent: int) -> None:
        """See whether :meth:`add` would take a file; what it raises, this does.

        Raises:
            FleetError: firmware without a semantic version, a share that is none, or there is this version already.
            NotThereError: there is no such model.
        """
        with unavailable_as_such(), Session(self._engine) as session:
            _check(session, model, file_type, version, rollout_percent)

    def add(self, model: str, file: FileInfo) -> None:
        """Give a file, whose bytes are in their place, to the devices of a model.

        Raises:
            FleetError: see :meth:`check`.
            NotThereError: there is no such model.
        """
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            model_id = _check(session, model, file.file_type, file.version, file.rollout_percent)
            session.add(
                File(
                    id=file.id,
                    model_id=model_id,
                    name=file.name,
                    description=file.description,
                    file_type=file.file_type,
                    version=file.version,
                    checksum=file.checksum,
                    signature=file.signature,
                    size_bytes=file.size_bytes,
                    rollout_percent=file.rollout_percent,
                    created_at=file.created_at,
                )
            )
            note_model(session, model_id)
            of_file: dict[str, Any] = {
                "id": file.id,
                "type": file.file_type,
                "version": file.version,
                "checksum": file.checksum,
            }
            note(session, "device_file.add", f"model/{model}", **of_file, rollout_percent=file.rollout_percent)

    def set_rollout(self, model: str, file_id: str, percent: int) -> FileInfo:
        """Offer a file to another share of a model's devices.

        Raises:
            FleetError: the share is none.
            NotThereError: the model has no such file.
        """
        _check_percent(percent)
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            row = session.scalar(
                select(File).join(Model).where(File.id == file_id, Model.name == model).with_for_update(of=File)
            )
            if row is None:
                raise NotThereError("The model has no such file")
            row.rollout_percent = percent
            note_model(session, row.model_id)
            note(session, "device_file.roll_out", f"model/{model}", id=file_id, rollout_percent=percent)
            return _info(row)

    def list_all(self, model: str) -> Sequence[FileInfo]:
        """Return the files of a model, newest first.

        Raises:
            NotThereError: there is no such model.
        """
        with unavailable_as_such(), Session(self._engine) as session:
            model_id = session.scalar(select(Model.id).where(Model.name == model))
            if model_id is None:
                raise NotThereError("There is no such model")
            rows = session.scalars(select(File).where(File.model_id == model_id).order_by(File.created_at.desc()))
            return [_info(row) for row in rows]

    def of_device(self, device_id: str) -> Sequence[FileInfo]:
        """Return the files that a device is offered, newest first."""
        query = (
            select(File)
            .join(Device, Device.model_id == File.model_id)
            .where(Device.id == device_id)
            .order_by(File.created_at.desc())
        )
        with unavailable_as_such(), Session(self._engine) as session:
            return [_info(row) for row in session.scalars(query) if is_offered(_info(row), device_id)]

    def get(self, device_id: str, file_id: str) -> FileInfo:
        """Return a file that a device is offered.

        Raises:
            NotThereError: it is offered no such file.
        """
        query = select(File).join(Device, Device.model_id == File.model_id)
        with unavailable_as_such(), Session(self._engine) as session:
            row = session.scalar(query.where(Device.id == device_id, File.id == file_id))
            if row is None or not is_offered(_info(row), device_id):
                raise NotThereError("There is no such file")
            return _info(row)


def _check(session: Session, model: str, file_type: str, version: str, rollout_percent: int) -> int:
    _check_percent(rollout_percent)
    if file_type == FIRMWARE:
        try:
            Version.parse(version)
        except ValueError:
            raise FleetError("version must be a semantic version, such as 1.3.4 or 2.0.0-rc.1") from None
    # Two uploads of one version at once: the second waits for the first.
    model_id = session.scalar(select(Model.id).where(Model.name == model).with_for_update())
    if model_id is None:
        raise NotThereError("There is no such model")
    versions = session.execute(select(File.file_type, File.version).where(File.model_id == model_id)).all()
    if (file_type, version) in versions:
        raise FleetError(f"The model has a file {file_type} of version {version} already")
    if len(versions) >= MAX_FILES:
        raise FleetError(f"The model has {MAX_FILES} files already")
    return model_id


def _check_percent(percent: int) -> None:
    if not 0 <= percent <= 100:
        raise FleetError("rollout_percent takes 0 to 100")


def _info(row: File) -> FileInfo:
    return FileInfo(
        id=row.id,
        name=row.name,
        description=row.description,
        file_type=row.file_type,
        version=row.version,
        checksum=row.checksum,
        signature=row.signature,
        size_bytes=row.size_bytes,
        rollout_percent=row.rollout_percent,
        created_at=row.created_at,
    )
