"""The manifest of a backup: what it holds, of when, and the checksums of its files. It is written last: a folder
without one holds no backup."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from midstream.backup.errors import BackupError

FORMAT = 1
MANIFEST = "manifest.json"
CLICKHOUSE = "clickhouse"
"""Subfolder of ClickHouse's files, where they lie in the backup's own folder."""

_CHUNK_BYTES = 1 << 20


class Claim(msgspec.Struct, frozen=True):
    """How far a partition of ``telemetry.raw`` was through. Times are epoch milliseconds."""

    topic: str
    partition: int
    complete_offset: int
    since_ms: int
    published_ms: int


class Seen(msgspec.Struct, frozen=True):
    """A partition: its first offset, its end, and when its last record was appended (epoch milliseconds; 0: it had
    none)."""

    topic: str
    partition: int
    begin: int
    end: int
    last_at_ms: int


class Position(msgspec.Struct, frozen=True):
    """What a consumer group had committed of a partition."""

    group: str
    topic: str
    partition: int
    offset: int


class ClickHousePart(msgspec.Struct, frozen=True):
    """What ClickHouse copied."""

    destination: str
    """Where to, as its BACKUP statement names it. "": to the subfolder of this backup."""
    base: str
    """Id of the backup without which this one is not whole; ""."""
    version: str
    database: str
    migration: int
    """Number of the newest migration."""
    rows: dict[str, int]
    """Least rows of each table: as counted before the copy."""
    claims: list[Claim]
    watermarks: dict[str, int]
    """Epoch milliseconds by name."""


class RegistryPart(msgspec.Struct, frozen=True):
    """What the registry held."""

    kind: str
    """sqlite or postgresql."""
    file: str
    revision: str
    rows: dict[str, int]


class KafkaPart(msgspec.Struct, frozen=True):
    """Where Kafka and its readers were, before anything was copied."""

    partitions: list[Seen]
    positions: list[Position]


class FileSum(msgspec.Struct, frozen=True):
    """A file of the backup."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """A backup."""

    format: int
    id: str
    made_at_ms: int
    """Epoch milliseconds, before anything was copied."""
    program: str
    """Version of Midstream."""
    key_fingerprint: str
    has_key: bool
    clickhouse: ClickHousePart
    registry: RegistryPart
    kafka: KafkaPart
    files: dict[str, FileSum]
    checksum: str = ""
    """SHA-256 of the manifest without it."""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it, durably, whole or not at all; only the owner may read it."""
    sealed = msgspec.structs.replace(manifest, checksum=_checksum(manifest))
    text = msgspec.json.format(msgspec.json.encode(sealed), indent=2) + b"\n"
    new = folder / f"{MANIFEST}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a backup.

    Raises:
        BackupError: ``NO_BACKUP``, ``NEWER_BACKUP`` or ``DAMAGED``.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        why = "it was never ended, or is another folder" if isinstance(error, FileNotFoundError) else error.strerror
        raise BackupError("NO_BACKUP", f"{folder} holds no backup: no {MANIFEST} can be read ({why})") from None
    try:
        found = msgspec.json.decode(text, type=_Format).format
        if found > FORMAT:
            raise BackupError(
                "NEWER_BACKUP",
                f"{path} has format {found}, this program reads up to {FORMAT}: restore with a newer one",
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackupError("DAMAGED", f"{path} is damaged: {error}") from None
    if manifest.checksum != _checksum(manifest):
        raise BackupError("DAMAGED", f"{path} is damaged: its checksum is another")
    return manifest


def sum_files(folder: Path, told: Callable[[int], None]) -> dict[str, FileSum]:
    """Return the checksums of all files below a folder by their relative paths; ``told`` is called with bytes read."""
    return {name: _sum_file(folder / name, told) for name in sorted(_names(folder))}


def check_files(folder: Path, manifest: Manifest, told: Callable[[int], None]) -> None:
    """See that all files of a backup are there as they were written.

    Raises:
        BackupError: ``DAMAGED``; the message names the first that is not.
    """
    for name, wanted in manifest.files.items():
        try:
            found = _sum_file(folder / name, told)
        except OSError as error:
            raise BackupError("DAMAGED", f"{folder / name} cannot be read: {error.strerror}") from None
        if found != wanted:
            raise BackupError(
                "DAMAGED",
                f"{folder / name} is damaged: {found.bytes} bytes, SHA-256 {found.sha256}; it had {wanted.bytes} and "
                f"{wanted.sha256}",
            )


class _Format(msgspec.Struct):
    format: int


def _checksum(manifest: Manifest) -> str:
    plain = msgspec.structs.replace(manifest, checksum="")
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


def _names(folder: Path) -> Iterator[str]:
    for root, _, files in os.walk(folder):
        for file in files:
            name = (Path(root) / file).relative_to(folder).as_posix()
            if name not in (MANIFEST, f"{MANIFEST}.new"):
                yield name


def _sum_file(path: Path, told: Callable[[int], None]) -> FileSum:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
            size += len(piece)
            told(len(piece))
    return FileSum(size, digest.hexdigest())
