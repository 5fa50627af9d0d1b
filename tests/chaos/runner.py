"""One run of a case: start, load, break, heal, wait until everything is through, judge."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from midstream.clickhouse.client import ClickHouseError
from midstream.topics import GROUP_RECEIPTS, GROUP_STORE, GROUP_VALIDATE
from tests.chaos.case import Case, Plan, Run
from tests.chaos.judge import Judgement, collect, judge
from tests.chaos.results import Result
from tests.chaos.traffic import Traffic
from tests.chaos.world import BROKER, DEVICES, ENGINE, JOBS, WEB, World
from tests.support.pipeline import ROOT

_POLL_S = 0.5
_AUDIT_S = 120.0
_COMPLETE_S = 60.0
_SEEN = 60


def run_case(case: Case, seed: int, plan: Plan, *, keep: bool = False, logs_to: Path | None = None) -> Result:
    """Run a case from an empty home to its verdict. ``logs_to`` gets the logs if it fails."""
    result = Result(case.name, seed, plan.events)
    if reason := case.why_not():
        result.verdict, result.faults = "skipped", [reason]
        return result
    began = time.monotonic()
    with World(case.shape(plan), plan.settings, keep=keep) as world:
        try:
            _run(case, seed, plan, world, result)
        except Exception as error:  # noqa: BLE001 - whatever it is, this run has failed, and the next case is another
            result.faults.append(f"{type(error).__name__}: {error}")
            result.notes["traceback"] = traceback.format_exc()
        result.verdict = "failed" if result.faults else "passed"
        result.notes["starts"] = world.keeper.starts()
        if keep:
            result.notes["home"] = str(world.root)
        if result.faults and logs_to is not None and world.logs.exists():
            shutil.rmtree(logs_to, ignore_errors=True)
            shutil.copytree(world.logs, logs_to)
    result.total_s = round(time.monotonic() - began, 1)
    return result


def _run(case: Case, seed: int, plan: Plan, world: World, result: Result) -> None:
    began = time.monotonic()
    world.start()
    result.notes["start_s"] = round(time.monotonic() - began, 1)
    rate = plan.events / case.lasts(plan)
    traffic = Traffic(world.settings.port, world.token, seed, rate)
    run = Run(world, traffic, plan, random.Random(f"{case.name} {seed}"), result.notes)
    try:
        traffic.start()
        run.sleep(case.warm_s)
        broken_at = time.monotonic()
        case.inject(run)
        _heal(world)
        healed_at = time.monotonic()
        traffic.finish(plan.events, plan.settle_s)
        sent_at = time.monotonic()
        settled = _settle(run)
        result.recovery_s = round(time.monotonic() - healed_at, 1)
        result.notes |= {
            "fault_s": round(healed_at - broken_at, 1),
            "sending_s": round(sent_at - broken_at + case.warm_s, 1),
            "replies": {str(status): times for status, times in sorted(traffic.statuses.items())},
        }
    finally:
        traffic.abandon()
    judgement = _judge(run)
    result.counts = judgement.as_json()
    audited = _audit(case, run)
    result.faults += case.verdict(run, judgement) + settled + audited


def _heal(world: World) -> None:
    """End every fault: proxies let through, nothing is frozen, all of the shape runs, and nothing else."""
    from bench.proxy import Fault

    for proxy in world.proxies.values():
        proxy.set(Fault.NONE)
    world.keeper.thaw()
    world.keeper.start(BROKER, ENGINE, *world.workers("validate"), *world.workers("store"), DEVICES, JOBS, WEB)
    spare = [name for stage in ("validate", "store") for name in world.spare_workers(stage)]
    world.keeper.stop(*(name for name in spare if world.keeper.pid(name)))


def _settle(run: Run) -> list[str]:
    """Wait until everything that was acknowledged is through; return what is not after the plan's time."""
    began = time.monotonic()
    deadline = began + run.plan.settle_s
    calm = 0
    waiting: dict[str, Any] = {}
    seen: list[dict[str, Any]] = []
    run.notes["settling"] = seen
    while calm < 2:
        if time.monotonic() > deadline:
            return [f"not everything was through after {run.plan.settle_s:.0f} s: {json.dumps(waiting)}"]
        waiting = _waiting(run)
        if len(seen) < _SEEN and (not seen or seen[-1]["waiting"] != waiting):
            seen.append({"after_s": round(time.monotonic() - began, 1), "waiting": waiting})
        calm = 0 if waiting else calm + 1
        run.sleep(_POLL_S)
    return []


def _waiting(run: Run) -> dict[str, Any]:
    """Return what is not through yet; nothing when all is."""
    lag = run.world.ask(run.world.kafka.lag)
    if not isinstance(lag, dict):
        return {"broker": "does not answer"}
    waiting: dict[str, Any] = {group: lag[group] for group in (GROUP_VALIDATE, GROUP_STORE, GROUP_RECEIPTS)}
    waiting["spooled_bytes"] = run.world.spooled_bytes()
    if any(waiting.values()):
        return waiting  # without asking the engine, which has better things to do now
    try:
        [(in_flight,)] = run.world.clickhouse.rows("SELECT sum(in_flight) FROM accounting")
        [(batches,)] = run.world.clickhouse.rows("SELECT count() FROM batches")
    except ClickHouseError as error:
        return {"engine": str(error)[:200]}
    waiting["in_flight"] = int(in_flight or 0)
    waiting["batches"] = max(run.traffic.ledger.acknowledged_batches - batches, 0)
    return {name: count for name, count in waiting.items() if count}


def _judge(run: Run) -> Judgement:
    """Judge; in a minute of grace, for an engine that is just starting again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return judge(run.traffic.ledger, collect(run.world.clickhouse))
        except ClickHouseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def _audit(case: Case, run: Run) -> list[str]:
    """Run `midstream audit` over everything; return what is wrong about what it says."""
    faults = _wait_complete(run)
    done = subprocess.run(
        [sys.executable, "-m", "midstream.cli", "audit", "--json"],
        cwd=ROOT,
        env=run.world.client_env(),
        capture_output=True,
        text=True,
        timeout=_AUDIT_S,
        check=False,
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        report = {}
    run.notes["audit"] = {"exit": done.returncode, "report": report, "errors": done.stderr[-2_000:]}
    if case.audit_exit is not None and done.returncode != case.audit_exit:
        said = {**report, "findings": report.get("findings", [])[:5]}
        faults.append(f"`midstream audit` exits with {done.returncode}: {json.dumps(said)} {done.stderr[-500:]}")
    [(received,)] = run.world.clickhouse.rows("SELECT sum(events) FROM batches")
    if report.get("received") != received:
        faults.append(f"`midstream audit` looked at {report.get('received')} of {received} events")
    return faults


def _wait_complete(run: Run) -> list[str]:
    """Wait until the audit may look at everything; return what is wrong if that does not come."""
    deadline = time.monotonic() + _COMPLETE_S
    while True:
        [(complete,)] = run.world.clickhouse.rows(
            "SELECT (SELECT complete_until FROM complete_until) > (SELECT max(received_at) FROM batches)"
        )
        if complete:
            return []
        if time.monotonic() > deadline:
            run.notes["marks"] = run.world.ask(run.world.kafka.marks)
            return [f"`complete_until` is not past the last batch after {_COMPLETE_S:.0f} s"]
        time.sleep(_POLL_S)
