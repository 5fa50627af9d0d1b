"""Clients, ``validate``, a log in partitions, ``store`` workers and ClickHouse in one process, one thing after another.

The steps that decide and store are the real ones: ``ValidBlock``, ``Storer``, ``DedupeCache``, ``decide``, ``Lease``
and the adapter's retries. What stands in for Kafka is a list a partition with a committed offset. A step is taken when
its method is called, so that whoever calls chooses the order, the crashes and the faults.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

import orjson
import pyarrow as pa

from midstream.clickhouse.client import ClickHouseError
from midstream.columns import VALID
from processors.lease import LeaseLostError
from processors.store.route import EVENT_TABLES
from processors.store.storer import StoreRecord
from processors.validate.seal import ValidBlock
from processors.validate.split import hash_mid, partition_of_mid
from tests.unit.store.fake_engine import Crash, FakeEngine, FakeStoredMids, Outcome
from tests.unit.store.rows import RECEIVED_AT_MS, event, valid_row
from tests.unit.store.strand import Strand
from tests.unit.store.worker_process import SESSION_TIMEOUT_MS, WorkerProcess

_BATCH_OF_RECORDS = 3
_MAX_DRAIN_STEPS = 400
_WINDOW_LEFT = 24
"""More inserts than one call of a worker makes."""
_MID_HASH = VALID.get_field_index("mid_hash")


class Violation(AssertionError):  # noqa: N818 - what the machine looks for, not an error of the code's own
    """Something that must never be, is."""


class Sent(NamedTuple):
    """One event that a client sent."""

    mid: str
    eid: str
    content: int
    refused: bool
    """ClickHouse refuses its data."""


Arrival = tuple[str, int]
"""Batch and index."""


@dataclass(frozen=True)
class Sizes:
    """The bounds of a world, small so that they are reached."""

    window: int = 32
    memory_bytes: int = 16
    recent: int = 2
    hash_bits: int = 64
    partitions: int = 2
    workers: int = 3


class World:
    """All that takes part, and what it must never come to."""

    def __init__(self, sizes: Sizes, *, acks_first: bool = False) -> None:
        self.sizes = sizes
        self.acks_first = acks_first
        self.time_s = 1_000.0
        self.generation = 0
        self.engine = FakeEngine(sizes.window)
        self.stored_mids = FakeStoredMids(self.engine)
        self.partitions = sizes.partitions
        self.logs: list[list[bytes]] = [[] for _ in range(self.partitions)]
        self.committed = [0] * self.partitions
        self.sent: dict[Arrival, Sent] = {}
        self.batches: list[list[Sent]] = []
        self.unsealed: list[int] = []
        self.workers = [WorkerProcess(self, number) for number in range(sizes.workers)]
        self._patch = patch("midstream.clickhouse.client.time", SimpleNamespace(sleep=lambda _: None))
        self._patch.start()
        self._joining_since: Counter[str] | None = None
        """Inserts by table when somebody woke who has not joined since: others may not know what it stored."""
        self.rebalance([0])

    def close(self) -> None:
        """End every thread and undo every patch."""
        for worker in self.standing():
            assert worker.strand is not None
            worker.strand.kill(Crash())
        self._patch.stop()

    def now_ms(self) -> int:
        return RECEIVED_AT_MS + int(self.time_s * 1000)

    # Clients and validate.

    def send(self, events: Sequence[Sent]) -> None:
        """A client posts a batch and is answered 200."""
        batch_id = f"b{len(self.batches)}"
        self.sent.update({(batch_id, index): one for index, one in enumerate(events)})
        self.unsealed.append(len(self.batches))
        self.batches.append(list(events))

    def seal(self, numbers: Sequence[int], seal_rows: int) -> None:
        """``validate`` reads these batches, new ones or again, and appends the blocks it makes of them to the log."""
        blocks = [ValidBlock(n, self.partitions, seal_rows, 1 << 20) for n in range(self.partitions)]
        sealed = []
        for number in numbers:
            for index, one in enumerate(self.batches[number]):
                edata = {"type": "T", "content": one.content, **({"refused": True} if one.refused else {})}
                value = event(one.mid, one.eid, edata=edata)
                raw = orjson.dumps(value)
                mid_hash = self.hash_mid(one.mid)
                row = valid_row(value, raw, f"b{number}", index)
                row = row.set_column(_MID_HASH, VALID.field(_MID_HASH), pa.array([mid_hash], pa.uint64()))
                sealed += blocks[partition_of_mid(mid_hash, self.partitions)].add(row)
        for block in blocks:
            sealed += block.seal()
        for one_sealed in sealed:
            self.logs[one_sealed.partition].append(one_sealed.value)
        self.unsealed = [number for number in self.unsealed if number not in numbers]

    def hash_mid(self, mid: str) -> int:
        return hash_mid(mid) >> (64 - self.sizes.hash_bits)

    # Kafka.

    def live(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.strand is None]

    def rebalance(self, choice: Sequence[int]) -> None:
        """Give the partitions to workers that live, those which ``choice`` says in turn. Who stands still loses its."""
        self.generation += 1
        self._joining_since = None
        live = self.live()
        owned = defaultdict(list)
        for partition in range(self.partitions):
            owned[live[choice[partition % len(choice)] % len(live)].number].append(partition)
        for worker in live:
            worker.assign(owned[worker.number])

    def acknowledge(self, worker: WorkerProcess, records: Sequence[StoreRecord], generation: int) -> None:
        """Commit; Kafka ignores who is not in the generation."""
        if generation != self.generation:
            return
        for record in records:
            self.committed[record.partition] = record.offset + 1
            worker.positions[record.partition] = record.offset + 1

    def reset_offsets(self, choice: Sequence[int]) -> None:
        """The group's offsets are set to the beginning."""
        self.committed = [0] * self.partitions
        self.rebalance(choice)

    def grow(self, more: int, choice: Sequence[int]) -> None:
        """Add partitions by the documented procedure: when all is stored."""
        self.drain()
        self.partitions += more
        self.logs += [[] for _ in range(more)]
        self.committed += [0] * more
        self.rebalance(choice)

    def make_topic_anew(self, choice: Sequence[int]) -> None:
        """Delete the topic, when all is stored, and create it again: its offsets begin at 0."""
        self.drain()
        self.logs = [[] for _ in range(self.partitions)]
        self.committed = [0] * self.partitions
        self.rebalance(choice)

    # Store workers.

    def process(
        self, number: int, count: int, plan: Sequence[Outcome], choice: Sequence[int], *, is_reversed: bool, again: bool
    ) -> None:
        """A worker stores its next records while its inserts end as planned.

        A worker that cannot go on ends and begins anew (``again``: it tries the same records once more first).
        """
        waiting = self.waiting()
        if not waiting:
            return
        worker = waiting[number % len(waiting)]
        self._tick()
        worker.side_by_side.is_reversed = is_reversed
        worker.connection.plan = deque(plan)
        records = worker.take(count)
        try:
            try:
                worker.store(records)
            except ClickHouseError:
                if not again:
                    raise
                worker.connection.plan.clear()
                worker.store(records)
        except (Crash, ClickHouseError):
            worker.begin()
            self.rebalance(choice)
        else:
            worker.connection.plan.clear()
        self._let_join()

    def freeze(
        self, number: int, count: int, inserts: int, choice: Sequence[int], *, is_sent: bool, is_ticking: bool
    ) -> None:
        """A worker stands still in its insert number ``inserts``, before or after the lease is checked, and its
        partitions go to others. ``is_ticking``: only that insert hangs, its process runs on, so its lease does not run
        out."""
        waiting = self.waiting()
        if len(self.live()) == 1 or not waiting:  # somebody must be left
            return
        worker = waiting[number % len(waiting)]
        self._tick()
        hold = Outcome.HOLD_SENT if is_sent else Outcome.HOLD_UNSENT
        worker.connection.plan = deque([*[Outcome.OK] * inserts, hold])
        records = worker.take(count)
        strand = Strand(lambda: worker.store(records))
        worker.connection.hold = strand.hold
        if strand.run():  # it had fewer inserts to make
            worker.connection.plan.clear()
            strand.result()
            return
        worker.connection.plan.clear()
        worker.strand, worker.is_ticking = strand, is_ticking
        worker.frozen_at = Counter(self.engine.inserts)
        if not is_ticking:
            for _ in range(SESSION_TIMEOUT_MS // 1000):
                self._tick()
        worker.must_arrive_in_window = is_sent or is_ticking
        self.rebalance(choice)

    def wake(self, worker: WorkerProcess) -> None:
        """Whoever stood still goes on: its insert arrives, and it does what it still may."""
        strand, worker.strand = worker.strand, None
        assert strand is not None
        if worker.is_ticking:
            worker.lease.tick()
        assert strand.run()
        with suppress(ClickHouseError, LeaseLostError):
            strand.result()
        worker.begin()  # its cache is out of date in any case: it joins anew
        self._joining_since = self._joining_since or Counter(self.engine.inserts)

    def wake_one(self, choice: int) -> None:
        standing = self.standing()
        self.wake(standing[choice % len(standing)])

    def insert_others(self, inserts: int) -> None:
        """Workers of other partitions insert into the same tables."""
        for table in EVENT_TABLES:
            for _ in range(inserts):
                self.before_insert(None, table)
                self._let_join()
                self.engine.note_token(table, f"other {self.engine.inserts[table]}")

    def before_insert(self, inserting: WorkerProcess | None, table: str) -> None:
        """The assumption under which tokens are enough: an insert that is under way arrives before the window has
        passed over its token. What was not sent has the lease instead."""
        for worker in self.standing():
            if worker is not inserting and worker.must_arrive_in_window and self._is_late(worker.frozen_at, table):
                self.wake(worker)

    def _is_late(self, since: Counter[str], table: str) -> bool:
        return self.engine.inserts[table] - since[table] >= self.engine.window - _WINDOW_LEFT

    def _let_join(self) -> None:
        """The rest of the assumption: who woke joins, so that all read anew what is stored, before the window has
        passed over what it stored."""
        since = self._joining_since
        if since is not None and any(self._is_late(since, table) for table in EVENT_TABLES):
            self.rebalance(range(len(self.workers)))

    def waiting(self) -> list[WorkerProcess]:
        """Return the workers that have something to do."""
        return [worker for worker in self.live() if worker.take(1)]

    def standing(self) -> list[WorkerProcess]:
        """Return the workers that stand still."""
        return [worker for worker in self.workers if worker.strand is not None]

    def _tick(self) -> None:
        self.time_s += 1.0
        for worker in self.workers:
            if worker.strand is None or worker.is_ticking:
                worker.lease.tick()

    # What must hold.

    def check(self) -> None:
        """Raise if something is wrong that can never be right again."""
        stored: dict[str, Arrival] = {}
        for row in self.engine.events():
            arrival = (row["batch_id"], row["event_index"])
            sent = self.sent.get(arrival)
            _insist(sent is not None and sent.mid == row["mid"] and not sent.refused, f"{arrival} was never sent so")
            _insist(row["mid"] not in stored, f"{row['mid']} is stored twice: {stored.get(row['mid'])}, {arrival}")
            stored[row["mid"]] = arrival
        for row in self.engine.tables["duplicate_rows"]:
            arrival, first = (row["batch_id"], row["event_index"]), (row["first_batch_id"], row["first_event_index"])
            _insist(self.sent[arrival].mid == row["mid"], f"the duplicate {arrival} was never sent")
            _insist(stored.get(row["mid"]) == first, f"{arrival} is called a duplicate of {first}, which is not stored")
            _insist(arrival != first, f"{arrival} is called a duplicate of itself")
            _insist(row["differs"] == (self.sent[arrival] != self.sent[first]), f"{arrival} differs, or does not")
        for row in self.engine.tables["reject_rows"]:
            arrival = (row["batch_id"], row["event_index"])
            _insist(self.sent[arrival].refused, f"{arrival} is rejected and need not be")

    def drain(self) -> None:
        """Let everybody finish, with nothing in the way; then every arrival has its one verdict."""
        for worker in self.standing():
            self.wake(worker)
        while self.unsealed:
            self.seal(self.unsealed[:3], seal_rows=4)
        self.rebalance(range(len(self.workers)))
        for _ in range(_MAX_DRAIN_STEPS):
            if self.committed == [len(log) for log in self.logs]:
                break
            for number in range(len(self.workers)):
                self.process(number, _BATCH_OF_RECORDS, (), (0,), is_reversed=False, again=False)
        else:
            raise Violation(f"records are left that nobody can store: {self.committed}")
        self.check()
        self._check_verdicts()

    def _check_verdicts(self) -> None:
        stored = {(row["batch_id"], row["event_index"]) for row in self.engine.events()}
        duplicates = {(row["batch_id"], row["event_index"]) for row in self.engine.tables["duplicate_rows"]}
        rejects = {(row["batch_id"], row["event_index"]) for row in self.engine.tables["reject_rows"]}
        stored_mids = {self.sent[arrival].mid for arrival in stored}
        for arrival, sent in self.sent.items():
            verdicts = [arrival in stored, arrival in duplicates, arrival in rejects]
            _insist(any(verdicts), f"{arrival} ({sent.mid}) has no verdict")
            # One that ClickHouse refused is a duplicate as well, once another arrival of its mid is stored and it is
            # read again: it counts as a duplicate. Nothing else may have two.
            _insist(sum(verdicts) == 1 or (sent.refused and not verdicts[0]), f"{arrival} has {verdicts}")
            _insist(sent.refused or sent.mid in stored_mids, f"{sent.mid} is lost")


def _insist(holds: bool, message: str) -> None:
    if not holds:
        raise Violation(message)
