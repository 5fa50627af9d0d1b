import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from serve.app import create_app
from serve.readiness import OK, Readiness
from serve.services import Services

from .conftest import Parts


async def test_health_is_200_whatever_the_others_do(client: httpx.AsyncClient, parts: Parts) -> None:
    parts.states = {"kafka": "away"}
    parts.accepting = False
    assert (await client.get("/health")).status_code == 200
    assert (await client.head("/health")).status_code == 200


async def test_accepting_is_the_collectors_word(client: httpx.AsyncClient, parts: Parts) -> None:
    reply = await client.get("/accepting")
    assert (reply.status_code, reply.json()) == (200, {"accepting": True})
    parts.accepting = False
    reply = await client.get("/accepting")
    assert (reply.status_code, reply.json()) == (503, {"accepting": False})
    assert (await client.head("/accepting")).status_code == 503


async def test_accepting_without_a_collector_is_404(services: Services) -> None:
    from dataclasses import replace

    app = create_app(services.settings, services=replace(services, accepting=None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://midstream") as client:
        assert (await client.get("/accepting")).status_code == 404


async def test_ready_needs_every_part(client: httpx.AsyncClient, parts: Parts) -> None:
    reply = await client.get("/ready")
    assert (reply.status_code, reply.json()) == (200, {"ready": True, "parts": parts.states})
    for part in list(parts.states):
        parts.states = {**parts.states, part: "away"}
        reply = await client.get("/ready")
        assert reply.status_code == 503
        assert reply.json()["ready"] is False
        assert reply.json()["parts"][part] == "away"
        parts.states = {**parts.states, part: OK}
    assert (await client.head("/ready")).status_code == 200


async def test_a_check_that_hangs_or_fails_is_a_part_that_is_not_ready() -> None:
    async def hangs() -> dict[str, str]:
        await asyncio.sleep(60)
        return {}

    async def fails() -> dict[str, str]:
        raise RuntimeError("broken")

    async def works() -> dict[str, str]:
        return {"good": OK}

    checks = {"hanging": hangs, "failing": fails, "good": works}
    states = await asyncio.wait_for(Readiness(checks, timeout_s=0.05).states(), 2)
    assert states["good"] == OK
    assert "no answer" in states["hanging"]
    assert "RuntimeError" in states["failing"]


async def test_the_checks_run_once_for_all_who_ask_within_a_second() -> None:
    runs = 0

    async def check() -> dict[str, str]:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)
        return {"part": OK}

    readiness = Readiness({"part": check})
    answers = await asyncio.gather(*(readiness.states() for _ in range(50)))
    assert answers == [{"part": OK}] * 50
    assert runs == 1


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    await client.put("/v1/dimensions/user/u", json={}, headers=operator)
    reply = await client.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain")
    assert 'midstream_dimension_rows_total{outcome="accepted",type="user"}' in reply.text


_WORKER = """
import sys
from midstream.metrics import DIMENSION_ROWS, IN_FLIGHT_BYTES
DIMENSION_ROWS.labels("user", "accepted").inc(3)
IN_FLIGHT_BYTES.inc(1000)
"""


async def test_metrics_add_up_the_workers_and_forget_the_gauges_of_dead_ones(
    client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    for _ in range(2):
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", _WORKER], check=True, timeout=60)
    assert list(folder.glob("gauge_livesum_*.db"))
    reply = await client.get("/metrics")
    assert 'midstream_dimension_rows_total{outcome="accepted",type="user"} 6.0' in reply.text
    assert "midstream_in_flight_bytes 2000" not in reply.text
    assert not list(folder.glob("gauge_livesum_*.db"))
    assert list(folder.glob("counter_*.db"))
