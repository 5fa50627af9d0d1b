"""What is stored, for the steps of jobs: corrected, repaired, erased. One at a time: who has the lease."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from midstream.dimensions import DimensionType
from midstream.registry.academies.users import erase_user
from midstream.registry.exhaust.datasets import Datasets
from midstream.registry.exhaust.revisions import Revisions
from midstream.settings import Settings
from serve.finder import LazyClient
from serve.jobs.repair import Repairs
from serve.jobs.tools import Erased

if TYPE_CHECKING:  # they bring PyArrow, which an idle process spares
    from midstream.correct.corrector import Corrector
    from midstream.erase.person import PersonEraser


class StoredEvents:
    """See :class:`serve.jobs.tools.Corrects` and :class:`serve.jobs.tools.Erases`. Blocks."""

    def __init__(self, settings: Settings, clickhouse: LazyClient, engine: Engine) -> None:
        self._settings = settings
        self._clickhouse = clickhouse
        self._engine = engine
        self.repairs = Repairs(self, clickhouse.rows, settings.dimension_repair_ms / 1000)

    def correct(
        self,
        type_: DimensionType,
        ids: Sequence[str] | None,
        progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
    ) -> int:
        """See :meth:`midstream.correct.corrector.Corrector.correct`; what was corrected before a stop counts."""
        from midstream.correct.corrector import StoppedError

        def between() -> bool:
            self.repairs.if_due()  # a long sync must not keep late dimensions waiting
            return should_stop()

        fill = self._settings.dimension_history == "as_was"
        try:
            return self._recovered().correct(type_, ids, fill=fill, progress=progress, should_stop=between)
        except StoppedError as stopped:
            return stopped.changed

    def repair(self, type_: DimensionType, since_ms: int) -> int:
        """See :meth:`midstream.correct.corrector.Corrector.repair`."""
        return self._recovered().repair(type_, since_ms)

    def erase(
        self,
        type_: DimensionType,
        id_: str,
        digest: str,
        progress: Callable[[str, int, int], None],
        check: Callable[[], None],
    ) -> Erased:
        """See :meth:`midstream.erase.person.PersonEraser.erase`."""
        self._recovered()
        done = self._eraser().erase(type_, id_, digest, progress, check)
        return Erased(done.changed, done.report)

    def _recovered(self) -> Corrector:
        """Return a corrector, after what another process has left half done was brought to its end."""
        from midstream.correct.corrector import Corrector

        corrector = Corrector(self._clickhouse.connected(), self._settings.clickhouse_cluster)
        if corrector.left_over() == "erasure":
            self._eraser().recover()
        else:
            corrector.recover()
        return corrector

    def _eraser(self) -> PersonEraser:
        from midstream.erase.person import PersonEraser

        clickhouse = self._clickhouse.connected()
        return PersonEraser(
            clickhouse, self._settings.clickhouse_cluster, _Rebuilding(self._engine), _Learners(self._engine)
        )


class _Rebuilding:
    """See :class:`midstream.erase.person.Rebuilds`."""

    def __init__(self, engine: Engine) -> None:
        self._datasets = Datasets(engine)
        self._revisions = Revisions(engine)

    def rebuild(self, first_day: date, last_day: date, reason: str) -> int:
        """Have the days of all datasets built anew."""
        return sum(self._revisions.add(dataset, None, first_day, last_day, reason) for dataset in self._datasets.list())


class _Learners:
    """See :class:`midstream.erase.person.ForgetsLearner`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def erase(self, user_id: int) -> int:
        """Remove a learner."""
        return erase_user(self._engine, user_id)
