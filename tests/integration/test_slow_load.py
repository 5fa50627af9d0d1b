"""A `store` worker that reads for longer what is stored than Kafka waits for a silent one keeps its lease meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

from tests.integration.outside import Outside, make_event
from tests.support.pipeline import ROOT, Pipeline
from tests.support.standins.slow_load.sitecustomize import LOAD_S

STANDIN = ROOT / "tests" / "support" / "standins" / "slow_load"
SESSION_TIMEOUT_MS = 6_000


def test_reading_for_long_loses_no_lease(tmp_path: Path) -> None:
    assert SESSION_TIMEOUT_MS / 1000 < LOAD_S
    pipeline = Pipeline(tmp_path / "home", kafka_session_timeout_ms=SESSION_TIMEOUT_MS, partitions=1)
    pipeline.env["PYTHONPATH"] = os.pathsep.join([str(STANDIN), str(ROOT)])
    with pipeline:
        assert pipeline.started_in_s > LOAD_S  # ready once it has read
        clients = Outside(pipeline)
        pid = pipeline.pid_of("store")
        for _ in range(2):
            found = clients.settle([clients.send([make_event() for _ in range(5)])])
            assert (found.stored, found.duplicate) == (5, 0)
        assert pipeline.pid_of("store") == pid
        clients.close()
