"""The drill of `make drill`, small: the home is lost but for Kafka's log, and everything is as clients were told."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import pytest

from tests.drill.run import Drill, Plan


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the one who runs the tests don't count."""
    for name in [name for name in os.environ if name.startswith("MIDSTREAM_")]:
        monkeypatch.delenv(name)


@pytest.mark.timeout(300)
def test_a_lost_home_is_restored_and_kafka_read_again() -> None:
    report = Drill(Plan(events_s=200, load_s=2.0, erases=False, loses_kafka=False), print).run()
    assert report.faults == [], json.dumps(asdict(report), indent=2, default=str)
    [counts] = report.counts.values()
    assert counts["stored"] > 0
    assert counts["duplicate"] > 0
    assert counts["rejected"] > 0
    assert counts["unaccounted"] == 0
