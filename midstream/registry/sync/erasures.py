"""Erased objects by their own names: digests made with the registry's key, looked for and noted."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from midstream.erased import SUBKEY, ErasedKey, pseudonym
from midstream.registry.keyfile import derive_key
from midstream.registry.sync.erased import ErasedIds
from midstream.registry.sync.forget import forget_id
from midstream.settings import Settings


class Erasures:
    """Every method blocks, and may raise RegistryUnavailable."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._ids = ErasedIds(engine)
        self._key: ErasedKey | None = None

    def digest(self, type_: str, id_: str) -> str:
        """Return an object's digest."""
        if self._key is None:
            self._key = ErasedKey(derive_key(self._settings, SUBKEY))
        return self._key.digest(type_, id_)

    def add(self, digest: str, type_: str, job_id: str) -> None:
        """Note that an object is erased."""
        self._ids.add(digest, type_, job_id)

    def among(self, type_: str, ids: Sequence[str]) -> set[str]:
        """Return those of some ids that were erased."""
        if not self._ids.is_any():
            return set()
        digests = {self.digest(type_, id_): id_ for id_ in ids}
        return {digests[digest] for digest in self._ids.among(digests)}

    def digests(self, type_: str) -> set[str]:
        """Return the digests of all erased objects of a type."""
        return self._ids.all(type_)

    def forget(self, type_: str, id_: str, digest: str) -> None:
        """Take an erased id out of the jobs that named it."""
        forget_id(self._engine, type_, id_, pseudonym(digest))
