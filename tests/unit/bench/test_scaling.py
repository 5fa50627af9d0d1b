"""What is worked out of the runs of bench.scaling and bench.inserts."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from bench.flow import Pause
from bench.inserts import fit
from bench.rebalance import Change
from bench.rebalance import table as rebalance_table
from bench.workers import Drained, efficiency, topic_size
from bench.workers import table as workers_table
from deploy.local.home import Home


def drained(workers: int, speed: float) -> Drained:
    return Drained(workers, 1_000, speed, 200.0, {"store": 30.0, "engine": 100.0, "broker": 10.0, "jobs": 1.0})


def test_efficiency_is_the_share_of_what_as_many_of_the_first_would_do() -> None:
    assert efficiency(4_000, 4, 1_000, 1) == 1.0
    assert efficiency(3_000, 4, 1_000, 1) == 0.75
    assert efficiency(3_000, 4, 2_000, 2) == 0.75


def test_the_table_of_workers_compares_medians_with_the_fewest() -> None:
    found = {1: [drained(1, 900), drained(1, 1_000), drained(1, 2_000)], 4: [drained(4, 3_000)]}
    rows = workers_table(found, 200, 8).rows
    assert rows[0][:4] == ["1", "900 / 1,000 / 2,000", "1,000", "1.00"]
    assert rows[1][:4] == ["4", "3,000 / 3,000 / 3,000", "750", "0.75"]
    assert rows[1][-3:] == ["30 / 30 / 30", "100 / 100 / 100", "10 / 10 / 10"]


def test_the_table_of_changes_has_a_row_each_and_columns_for_each_kind() -> None:
    calm, paused = Pause(1_200, 0, 0), Pause(11_500, 11_000, 4)
    found = {"without a name": [Change("a", 0, 1_100, calm)], "named": [Change("a", 0, 1_000, paused)]}
    table = rebalance_table(found, argparse.Namespace(rate=1_000.0, partitions=8))
    assert table.rows == [["a", "1.2", "", "0", "11.5", "11.0", "4"]]
    assert "1.1 s without a name, 1.0 s named" in table.note


def test_a_line_is_fitted_by_what_is_wrong_in_relation() -> None:
    assert fit([(50, 30.5), (1_000, 40.0), (5_000, 80.0)]) == pytest.approx((30.0, 0.01))
    fixed, each = fit([(50, 27.0), (50, 33.0), (5_000, 80.0)])
    assert 27 < fixed < 33
    assert each == pytest.approx((80 - fixed) / 5_000, rel=0.05)


def test_the_size_of_a_topic_is_that_of_its_segments_and_no_others(tmp_path: Path) -> None:
    home = Home(Path(os.path.realpath(tmp_path)))
    for name, size in (
        ("telemetry.raw-0/0.log", 100),
        ("telemetry.raw-11/5.log", 20),
        ("telemetry.raw-0/0.index", 7),
        ("telemetry.valid-0/0.log", 3),
    ):
        path = home.kafka / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    assert topic_size(home, "telemetry.raw") == 120
    assert topic_size(home, "telemetry.valid") == 3
