"""The arithmetic of how much a load takes, and that docs/scaling.md shows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.capacity import MEASURED, Asked, main, plan

PAGE = Path(__file__).parents[3] / "docs" / "scaling.md"


def test_a_small_load_is_one_pipeline_sealed_as_by_default() -> None:
    small = plan(Asked(1_000))
    assert (small.pipelines, small.validate_workers, small.partitions, small.seal_s) == (1, 1, 2, 0.25)
    assert small.blocks_per_s == 1 * 2 / 0.25
    assert small.block_rows == 1_000 / 8
    assert small.events_a_day == 86_400_000


def test_cores_follow_from_what_a_batch_and_an_event_cost() -> None:
    of_20, of_200 = plan(Asked(1e6)), plan(Asked(1e6, batch_events=200))
    assert of_20.validate_cores == pytest.approx(60)
    assert of_200.validate_cores == pytest.approx(42)
    assert of_20.collector_cores == pytest.approx(26.5, abs=0.1)
    assert of_20.store_cores == of_200.store_cores == pytest.approx(25)


@pytest.mark.parametrize("rate", [1e3, 1e4, 1e5, 1e6])
@pytest.mark.parametrize("insert_ms", [10, 50, 200])
def test_no_worker_has_more_to_do_than_it_has_time_for(rate: float, insert_ms: float) -> None:
    found = plan(Asked(rate, insert_ms=insert_ms))
    workers = found.pipelines * found.validate_workers
    assert found.validate_cores / workers <= 0.5 + 1e-9
    # One partition a store worker: its blocks one after the other.
    waits = found.validate_workers / found.seal_s * insert_ms / 1000
    assert waits <= 0.5 + 1e-9
    assert waits + found.store_cores / (found.partitions * found.pipelines) <= 0.8 + 1e-9
    # What a worker takes up until it seals fits a round.
    assert rate / workers * found.seal_s * 754 <= 24 * 2**20 + 1 or found.seal_s == 0.25


def test_slower_inserts_take_more_pipelines_or_longer_blocks() -> None:
    near, far = plan(Asked(1e6, insert_ms=20)), plan(Asked(1e6, insert_ms=200))
    assert near.pipelines < far.pipelines


def test_bytes_follow_from_size_retention_and_copies() -> None:
    measured = replace(
        MEASURED, raw_bytes=100, valid_bytes=200, stored_bytes_day=300, stored_bytes_later=100, mid_bytes=2
    )
    found = plan(Asked(1_000, retention_days=11, kafka_days=1, replication=3), measured)
    assert found.kafka_written_bytes_per_s == pytest.approx(900_000)
    assert found.kafka_read_bytes_per_s == pytest.approx(400_000)
    assert found.kafka_disk_bytes == pytest.approx(900_000 * 86_400)
    assert found.stored_bytes == pytest.approx(86_400_000 * (300 + 10 * 100))
    assert found.dedupe_bytes == pytest.approx(86_400_000 * 11 * 2)
    assert found.dedupe_bytes_worker == pytest.approx(found.dedupe_bytes / 2)
    twice = plan(Asked(1_000, event_bytes=2 * 754, retention_days=11), measured)
    assert twice.stored_bytes == pytest.approx(2 * found.stored_bytes)


@pytest.mark.parametrize("rate", [1e3, 1e5, 1e6, 3e6])
def test_a_block_goes_to_one_shard(rate: float) -> None:
    found = plan(Asked(rate))
    assert found.partitions.bit_count() == found.shards.bit_count() == 1


def test_the_page_shows_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["capacity"])
    assert main() == 0
    printed = capsys.readouterr().out.partition("\n\n")[2]  # without its title
    assert printed.strip() in PAGE.read_text("utf-8"), "write the answer of `python -m bench.capacity` into the page"


@pytest.mark.parametrize("wrong", [["--events-per-s", "0"], ["--insert-ms", "-1"], ["--replication", "0"]])
def test_nothing_is_worked_out_of_nothing(wrong: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["capacity", *wrong])
    with pytest.raises(SystemExit):
        main()
