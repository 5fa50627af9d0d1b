"""200,000 events as fast as the collector takes them: all there, counted right; and 100,000 while workers are
killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.integration.fleet import EVENTS, INVALID_EVERY, RESENT_EVERY, Fleet, Ledger, Watch
from tests.integration.outside import WORKERS, Outside, processes_of, run_apart, unique, web_workers
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until

BATCHES = 10_000
SMALL_BATCHES = 500

MIB = 1024 * 1024
MORE_BATCHES = 5_000
# Of one process, the web workers each; and what it may use more for the events after the first 200,000.
MAX_RSS_BYTES = {
    "validate": 320 * MIB,
    "store": 400 * MIB,
    "devices": 240 * MIB,
    "jobs": 160 * MIB,
    "web": 240 * MIB,
}
MAX_GROWTH_BYTES = 96 * MIB

SAMPLE_S = 0.5
THROUGH_TIMEOUT_S = 180.0


@pytest.fixture(scope="module")
def expendable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline whose workers may be killed."""
    with Pipeline(tmp_path_factory.mktemp("expendable") / "home") as running:
        yield running


class Memory:
    """The most resident memory that a process of each worker used while a fleet sent."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._processes = {
            name: [psutil.Process(pid) for pid in (web_workers(pipeline) if name == "web" else pids)]
            for name, pids in processes_of(pipeline).items()
        }
        self.highest = dict.fromkeys(WORKERS, 0)

    def sample(self) -> None:
        """Look now."""
        for name, processes in self._processes.items():
            self.highest[name] = max(self.highest[name], *(process.memory_info().rss for process in processes))

    async def watch(self, fleet: Fleet) -> None:
        """Look until the fleet is done."""
        while not fleet.done:
            self.sample()
            await asyncio.sleep(SAMPLE_S)


def send(outside: Outside, batches: int, watch: Watch | None = None) -> Ledger:
    """Send as fast as it goes; return the ledger once everything is through the pipeline."""
    fleet = Fleet(outside.pipeline.base_url, outside.token, unique("fleet"), batches)
    began = time.monotonic()
    ledger: Ledger = run_apart(fleet.run(watch))
    sent = time.monotonic()
    wait_until("all is stored", lambda: stored(outside, ledger) >= ledger.valid, THROUGH_TIMEOUT_S, 0.2)
    print(
        f"{ledger.mids} events sent in {sent - began:.1f} s ({ledger.mids / (sent - began):.0f}/s), "
        f"stored {time.monotonic() - sent:.1f} s later; replies {ledger.statuses}"
    )
    return ledger


def stored(outside: Outside, ledger: Ledger) -> int:
    count: int = outside.value("SELECT count() FROM events WHERE channel = {channel:String}", channel=ledger.channel)
    return count


def check_exact(outside: Outside, ledger: Ledger) -> None:
    """What is stored is the set of the ledger's valid mids, none twice; the rest adds up."""
    outside.wait_accounted()
    number = "toUInt32(splitByChar(':', mid)[2])"
    row = outside.row(
        f"SELECT count() AS rows, uniqExact(mid) AS mids, countIf({number} >= {ledger.mids}) AS unknown,"
        f" countIf({number} % {INVALID_EVERY} = {INVALID_EVERY - 1}) AS invalid"
        " FROM events WHERE channel = {channel:String}",
        channel=ledger.channel,
    )
    # As many different ones as are valid, and no other: the two sets are the same.
    assert row == {"rows": ledger.valid, "mids": ledger.valid, "unknown": 0, "invalid": 0}
    # A batch's own row is written a second or so after its events.
    wait_until("every batch has its row", lambda: batches_of(outside, ledger) >= ledger.acknowledged, 60, 0.5)
    wait_until(
        "every event received is in the accounting",
        lambda: accounted(outside, ledger)["received"] == batches_of(outside, ledger) * EVENTS,
        60,
        0.5,
    )
    row, batches = accounted(outside, ledger), batches_of(outside, ledger)
    assert row["received"] == batches * EVENTS
    assert row["stored"] == ledger.valid
    # Each arrival of a batch brings the same share of bad events; only the first arrival's good ones are stored.
    assert row["duplicate"] + row["rejected"] == batches * EVENTS - ledger.valid
    assert ledger.acknowledged <= batches <= ledger.attempts
    assert ledger.acknowledged == ledger.mids // EVENTS + ledger.resent
    uniq = outside.row(
        "SELECT count() AS rows, uniqExact(mid) AS mids FROM rejects WHERE channel = {channel:String}",
        channel=ledger.channel,
    )
    assert uniq == {"rows": row["rejected"], "mids": ledger.invalid}


def accounted(outside: Outside, ledger: Ledger) -> dict[str, int]:
    """Return what the accounting says of the fleet's channel."""
    return outside.row(
        "SELECT sum(received) AS received, sum(stored) AS stored, sum(duplicate) AS duplicate,"
        " sum(rejected) AS rejected FROM accounting WHERE channel = {channel:String}",
        channel=ledger.channel,
    )


def batches_of(outside: Outside, ledger: Ledger) -> int:
    """Return how many batches of the fleet were received, by their receipts."""
    count: int = outside.value(
        "SELECT count() FROM batches WHERE batch_id IN (SELECT batch_id FROM events WHERE channel = {channel:String}"
        " UNION ALL SELECT batch_id FROM duplicates WHERE channel = {channel:String}"
        " UNION ALL SELECT batch_id FROM rejects WHERE channel = {channel:String})",
        channel=ledger.channel,
    )
    return count


def test_some_thousands(outside: Outside) -> None:
    """The small twin: also against servers in containers."""
    ledger = send(outside, SMALL_BATCHES)
    assert ledger.statuses == {200: SMALL_BATCHES + ledger.resent}
    check_exact(outside, ledger)


@pytest.mark.timeout(500)
def test_200_000_are_counted_right_in_flat_memory(expendable: Pipeline) -> None:
    outside = Outside(expendable)
    before = processes_of(expendable)
    used = []
    for batches in (BATCHES, MORE_BATCHES):
        memory = Memory(expendable)
        ledger = send(outside, batches, memory.watch)
        memory.sample()
        used.append(memory.highest)
        assert ledger.resent == batches // RESENT_EVERY
        # A full collector may say 503 on a busy machine; what counts is that every batch is taken once it is.
        assert set(ledger.statuses) <= {200, 503}
        assert ledger.statuses[200] == batches + ledger.resent
        check_exact(outside, ledger)
        assert batches_of(outside, ledger) == ledger.acknowledged
    assert processes_of(expendable) == before
    first, more = used
    for name in WORKERS:
        print(f"{name}: at most {first[name] // MIB} MiB, then {more[name] // MIB} MiB")
        assert max(first[name], more[name]) < MAX_RSS_BYTES[name]
        assert more[name] - first[name] < MAX_GROWTH_BYTES


@pytest.mark.timeout(500)
def test_100_000_are_counted_right_while_workers_are_killed(expendable: Pipeline) -> None:
    """kill -9 of each kind of worker in the middle of it; the clients send again what got no 200."""
    outside = Outside(expendable)
    victims: list[tuple[float, Callable[[], int]]] = [
        (0.2, lambda: expendable.pid_of("validate")),
        (0.4, lambda: expendable.pid_of("store")),
        (0.6, lambda: web_workers(expendable)[0]),
        (0.9, lambda: expendable.pid_of("store") or expendable.pid_of("validate")),
    ]
    killed: list[int] = []

    async def kill(fleet: Fleet) -> None:
        for share, victim in victims:
            while fleet.sent < share * MORE_BATCHES:  # noqa: ASYNC110 - an event a share would say no more
                await asyncio.sleep(0.01)
            pid = await asyncio.to_thread(victim)
            assert pid  # 0 would be this process's own group
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    ledger = send(outside, MORE_BATCHES, kill)
    assert len(set(killed)) == len(victims)
    check_exact(outside, ledger)
    expendable.wait_ready()
