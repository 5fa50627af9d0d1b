"""The configured sources as the steps of a job know them: read anew by each job, so that a correction of their file
counts at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from midstream.dimensions import Dimension, DimensionType
from midstream.settings import Settings
from midstream.sources.errors import SourceCode, SourceError
from serve.jobs.errors import FailedError, TryAgainError

if TYPE_CHECKING:
    from midstream.sources.staging import Staged as StagedRows

_PASSING = frozenset(
    {
        SourceCode.SOURCE_UNAVAILABLE,
        SourceCode.SOURCE_TIMEOUT,
        SourceCode.SOURCE_CUT,
        SourceCode.SOURCE_CHANGED,
        SourceCode.STAGING_FAILED,
    }
)
"""What may pass by itself. At any other a person has to do something."""


def as_ours(error: SourceError) -> FailedError | TryAgainError:
    """Return what the job is told of a source's error."""
    message = f"{error.code}: {error}"
    return TryAgainError(message) if error.code in _PASSING else FailedError(message)


class ConfiguredSources:
    """See :class:`serve.jobs.tools.ReadsSource`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def has(self, type_: DimensionType) -> bool:
        """Whether a type has a source; raise FailedError where the configuration cannot be used."""
        if not self._settings.dimension_sources:
            return False
        from midstream.sources.opening import open_sources  # brings clients of HTTP, which an idle process spares

        try:
            return type_ in open_sources(self._settings)
        except SourceError as error:
            raise as_ours(error) from None

    def read(
        self, type_: DimensionType, ids: Sequence[str] | None, since: str | None, progress: Callable[[int], None]
    ) -> Staged:
        """Read a source to its end.

        Raises:
            FailedError: somebody has to put it right.
            TryAgainError: it may pass.
        """
        from midstream.sources.opening import open_sources
        from midstream.sources.staging import stage

        try:
            source = open_sources(self._settings)[type_]
            return Staged(stage(source, self._settings, ids, since, progress), self._settings.sync_min_share)
        except KeyError:
            raise FailedError(f"the type {type_} has no source any more") from None
        except SourceError as error:
            raise as_ours(error) from None


class Staged:
    """See :class:`serve.jobs.tools.Staged`."""

    def __init__(self, staged: StagedRows, min_share: float) -> None:
        self._staged = staged
        self._min_share = min_share
        self.began_ms = staged.began_ms
        self.rows = staged.rows
        self.refused = staged.refused
        self.whole = staged.whole
        self.watermark = staged.watermark

    def refusals(self) -> list[dict[str, str]]:
        """Return the first rows that were not taken, each with its place, code and message."""
        return [{"place": one.place, "code": one.code, "message": one.message} for one in self._staged.refusals]

    def add_gone(self, known: Iterable[tuple[str, int, bool]], *, force: bool) -> tuple[int, int]:
        """Add a tombstone for each known object that did not come; return how many, and how many were withheld.

        Raises:
            FailedError, TryAgainError: see :meth:`midstream.sources.staging.Staged.compare`.
        """
        from midstream.sources.gone import Known

        try:
            compared = self._staged.compare(map(Known._make, known), self._min_share, force=force)
            return compared.tombstones, compared.withheld
        except SourceError as error:
            raise as_ours(error) from None

    def blocks(self) -> Iterator[Sequence[Dimension]]:
        """Yield the rows, then the tombstones.

        Raises:
            TryAgainError: the disk does not give them back.
        """
        try:
            yield from self._staged.blocks()
        except SourceError as error:
            raise as_ours(error) from None

    def answers(self) -> Mapping[str, bool]:
        """Return for each id that was asked for whether the source has it."""
        return self._staged.answers()

    def close(self) -> None:
        """Remove the rows from the disk."""
        self._staged.close()
