"""One ``store`` worker of a :class:`tests.unit.store.world.World`: the real steps over a fake log and engine."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from midstream.clickhouse.client import ClickHouseError
from processors.lease import Lease, LeaseLostError
from processors.store.dedupe.cache import DedupeCache
from processors.store.dimension_cache import Entry
from processors.store.storer import Storer, StoreRecord
from tests.unit.store.fake_engine import FakeConnection
from tests.unit.store.rows import RECEIVED_AT_MS
from tests.unit.store.strand import Strand

if TYPE_CHECKING:
    from tests.unit.store.world import World

SESSION_TIMEOUT_MS = 20_000
_INSERT_TRIES = 4


class _NoDimensions:
    def get(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[list[Entry]]:
        return [[Entry("", -1)] * len(ids) for _, ids in wanted]


class _SideBySide:
    """Runs a record's inserts one after the other; as threads would, the others still run when one fails."""

    def __init__(self) -> None:
        self.is_reversed = False

    def map(self, call: Callable[[Any], Any], units: Sequence[Any]) -> list[Any]:
        results: dict[int, Any] = {}
        errors: list[Exception] = []
        for index in sorted(range(len(units)), reverse=self.is_reversed):
            try:
                results[index] = call(units[index])
            except (ClickHouseError, LeaseLostError) as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return [results[index] for index in range(len(units))]


class WorkerProcess:
    """One ``store`` worker: a process that dies and comes again."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.begin()

    def begin(self) -> None:
        """Start anew, with nothing remembered and nothing assigned."""
        world = self.world
        self.connection = FakeConnection(world.engine, lambda table: world.before_insert(self, table))
        self.lease = _GatedLease(self.connection, world)
        clickhouse = self.connection.clickhouse()
        self.storer = Storer(
            clickhouse,
            _NoDimensions(),  # type: ignore[arg-type]
            self.lease,
            _INSERT_TRIES,
            stored=world.stored_mids,
            clock_ms=world.now_ms,
        )
        self.side_by_side = _SideBySide()
        self.storer._inserts = self.side_by_side  # type: ignore[assignment]
        self.cache = self._empty_cache()
        self.positions: dict[int, int] = {}
        self.strand: Strand | None = None
        self.is_ticking = True
        self.must_arrive_in_window = False
        self.frozen_at: Counter[str] = Counter()

    def _empty_cache(self) -> DedupeCache:
        sizes = self.world.sizes
        return DedupeCache(self.world.stored_mids, sizes.memory_bytes, sizes.recent)

    def assign(self, partitions: Sequence[int]) -> None:
        """Take partitions, as ``Worker.load_cache`` does before their records flow."""
        self.cache = self._empty_cache()
        self.cache.load(partitions, self.world.partitions)
        self.positions = {partition: self.world.committed[partition] for partition in partitions}

    def take(self, count: int) -> list[StoreRecord]:
        """Return the next records of the assigned partitions, in turn."""
        queues = [
            deque(
                StoreRecord("telemetry.valid", partition, offset, RECEIVED_AT_MS, self.world.logs[partition][offset])
                for offset in range(position, len(self.world.logs[partition]))
            )
            for partition, position in sorted(self.positions.items())
        ]
        taken: list[StoreRecord] = []
        while len(taken) < count and any(queues):
            taken += [queue.popleft() for queue in queues if queue][: count - len(taken)]
        return taken

    def store(self, records: list[StoreRecord]) -> None:
        """Store and acknowledge, as ``Worker.store_valid`` does."""
        generation = self.world.generation
        if self.world.acks_first:
            self.world.acknowledge(self, records, generation)
        for partition in {record.partition for record in records}:
            self.cache.saw_end(partition, len(self.world.logs[partition]))
        self.storer.store_valid(records, self.cache)
        self.world.acknowledge(self, records, generation)


class _GatedLease(Lease):
    def __init__(self, connection: FakeConnection, world: World) -> None:
        super().__init__(SESSION_TIMEOUT_MS, lambda: world.time_s)
        self._connection = connection

    def check(self) -> None:
        self._connection.before_lease_check()
        super().check()
