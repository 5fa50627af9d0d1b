"""What the steps of a job work with, each behind the little of it that they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from aiokafka.structs import TopicPartition

from midstream.dimensions import Dimension, DimensionType
from serve.sync.alive import Rows

if TYPE_CHECKING:
    from serve.services import BulkPublication  # which brings the whole api with it

Ends = Mapping[TopicPartition, int]
"""Of each partition the offset after its last record."""


class Staged(Protocol):
    """What was read of a source, to its end. For one thread at a time."""

    @property
    def began_ms(self) -> int:
        """When the read began, epoch milliseconds."""

    @property
    def rows(self) -> int:
        """Rows that were taken."""

    @property
    def refused(self) -> int:
        """Rows that were not."""

    @property
    def whole(self) -> bool:
        """Whether what did not come is not in the source."""

    @property
    def watermark(self) -> str | None:
        """Where the next read may begin once all rows are published."""

    def refusals(self) -> list[dict[str, str]]:
        """Return the first of those."""

    def add_gone(self, known: Iterable[tuple[str, int, bool]], *, force: bool) -> tuple[int, int]:
        """Add a tombstone for each known object (id, version, whether it is deleted) that did not come; return how
        many, and how many were not added as rows were refused that could be theirs.

        Raises FailedError: too many are missing for a source that is whole.
        """

    def blocks(self) -> Iterator[Sequence[Dimension]]:
        """Yield the rows, then the tombstones."""

    def answers(self) -> Mapping[str, bool]:
        """Return for each id that was asked for whether the source has it."""

    def close(self) -> None:
        """Let go of it."""


class ReadsSource(Protocol):
    """Reads the configured sources. Blocks."""

    def has(self, type_: DimensionType) -> bool:
        """Whether a type has a source; raise FailedError where the configuration cannot be used."""

    def read(
        self, type_: DimensionType, ids: Sequence[str] | None, since: str | None, progress: Callable[[int], None]
    ) -> Staged:
        """Read a source to its end.

        ``progress`` is told of the rows so far; what it raises ends the read.
        Raises FailedError or TryAgainError; nothing of it is left then.
        """


class Corrects(Protocol):
    """Gives stored events the present copies of objects. Blocks."""

    def correct(
        self,
        type_: DimensionType,
        ids: Sequence[str] | None,
        progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
    ) -> int:
        """Return how many events changed; stop between portions when ``should_stop``.

        Raises ClickHouseError: it may be called again.
        """


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did."""

    changed: Mapping[str, int]
    """Rows by table."""
    report: Mapping[str, Any]
    """What was changed, and what only time removes. It names the object by its pseudonym alone."""


class Erases(Protocol):
    """Erases objects. Blocks."""

    def erase(
        self,
        type_: DimensionType,
        id_: str,
        digest: str,
        progress: Callable[[str, int, int], None],
        check: Callable[[], None],
    ) -> Erased:
        """Replace an object's id by its pseudonym wherever it is stored; begun again, it goes on.

        Args:
            type_: of the object.
            id_: as it is called.
            digest: of it, see :mod:`midstream.erased`; the registry and every worker of ``store`` have it already,
                and all that was stored without it is.
            progress: told a step's name, what is done of it, and of how much.
            check: called where it is safe to stop; raises to have it stop.

        Raises: ClickHouseError, PublishError, RegistryUnavailable: it is begun again later.
        """


class Publishes(Protocol):
    """Writes rows to the topic ``dimensions``."""

    async def publish(self, row: Dimension) -> None:
        """Return when Kafka has acknowledged the row; raise PublishError."""

    async def forget(self, row: Dimension) -> None:
        """Have Kafka forget an object whose last row this is; raise PublishError."""

    def bulk(self) -> BulkPublication:
        """Begin many rows."""


class Follows(Protocol):
    """Tells where Kafka's consumer groups are."""

    async def ends(self, topic: str) -> Ends:
        """Return where a topic's partitions end now; raise KafkaError."""

    async def behind(self, group: str, ends: Ends) -> int:
        """Return how many records before these ends a group has not acknowledged; raise KafkaError."""


class KnowsErased(Protocol):
    """The digests of erased objects. Blocks; every method may raise RegistryUnavailable."""

    def digest(self, type_: str, id_: str) -> str:
        """Return an object's digest."""

    def add(self, digest: str, type_: str, job_id: str) -> None:
        """Note that an object is erased."""

    def among(self, type_: str, ids: Sequence[str]) -> set[str]:
        """Return those of some ids that were erased."""

    def forget(self, type_: str, id_: str, digest: str) -> None:
        """Take an erased id out of the jobs that named it."""


class Watermarks(Protocol):
    """How far sources were read. Blocks; every method may raise RegistryUnavailable."""

    def watermark(self, type_: str) -> str | None:
        """Return that of the last whole sync of a type."""

    def note(self, type_: str, watermark: str) -> None:
        """Note it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long steps wait, in seconds.

    Attributes:
        visible_s: longest wait until ClickHouse has what was published; then the job is put off.
        settle_s: longest wait until ``store`` has stored what it had before; then the job goes on.
        heard_s: within which every worker of ``store`` has heard of a row.
        poll_s: between looks.
        resweep_s: after which the events are looked through once more.
    """

    visible_s: float = 60.0
    settle_s: float = 120.0
    heard_s: float = 2.0
    poll_s: float = 0.5
    resweep_s: float = 330.0


@dataclass(frozen=True)
class Tools:
    """Everything the steps call. A test puts doubles in their place."""

    sources: ReadsSource
    watermarks: Watermarks
    publisher: Publishes
    rows: Rows
    """Queries ClickHouse; blocks."""
    follows: Follows
    corrects: Corrects
    erases: Erases
    erased: KnowsErased
    answer: Callable[[str, Mapping[str, bool]], object]
    """Notes what became of each id of a job; blocks."""
    limits: Limits = field(default_factory=Limits)
