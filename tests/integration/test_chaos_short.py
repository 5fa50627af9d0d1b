"""Some cases of `make chaos`, with few events: enough to see that harness and pipeline still stand up to them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.chaos.case import CASES, Plan
from tests.chaos.cases import load_all
from tests.chaos.runner import run_case

load_all()

# Few events make small blocks, and it is blocks that cost: fewer of them.
PLAN = Plan(events=12_000, fault_s=8.0, away_s=8.0, settle_s=90.0, settings={"seal_interval_ms": 1_000})
SEED = 11


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the one who runs the tests don't count."""
    for name in [name for name in os.environ if name.startswith("MIDSTREAM_")]:
        monkeypatch.delenv(name)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name",
    [
        "kill_everything",
        "cut_store_engine",
        "zombie_store_without_tokens",
        "sabotage_store",
    ],
)
def test_case(name: str, tmp_path: Path) -> None:
    result = run_case(CASES[name], SEED, PLAN, logs_to=tmp_path / "logs")
    assert result.verdict == "passed", json.dumps(asdict(result), indent=2, default=str)
    assert result.counts["sent"] >= PLAN.events
    assert result.counts["acknowledged"] >= PLAN.events
