"""Learners at exercises: simulated ones, whose runners send telemetry as they go, and what the course's author sees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
import orjson

from deploy.local.demo.target import DemoError
from midstream.assignments.duration import show_duration
from midstream.assignments.indicators import ALGO_VERSION, StepFacts, indicators, step_facts
from midstream.assignments.runner import read_telemetry
from midstream.simulate.learner import Exercise, ExerciseStep, Learner

LEARNERS = 30
EXERCISES = (
    Exercise(
        "hello-python", (ExerciseStep("00-welcome", 0.97), ExerciseStep("01-print", 0.9), ExerciseStep("02-sum", 0.8))
    ),
    Exercise(
        "loops",
        (
            ExerciseStep("00-count-to-ten", 0.85),
            ExerciseStep("01-every-second", 0.7),
            ExerciseStep("02-nested-loops", 0.15),
            ExerciseStep("03-while", 0.65),
        ),
    ),
    Exercise(
        "dictionaries",
        (
            ExerciseStep("00-look-up", 0.85),
            ExerciseStep("01-count-words", 0.45),
            ExerciseStep("02-invert", 0.4),
            ExerciseStep("03-group-by", 0.25),
        ),
    ),
)
_SENDINGS = 4
"""How often a runner sends what has been done so far."""
_AT_ONCE = 6
_TIMEOUT_S = 10.0
_SENDING_LIMIT_S = 25.0
_ARRIVAL_LIMIT_S = 10.0
_POLL_S = 0.5
_WEEK_MS = 7 * 86_400_000
_ROUNDED_BY = 0.01
_SCORES = ("engagement_score", "frustration_score", "completion_rate")


@dataclass(frozen=True, slots=True)
class School:
    """An academy in the registry, the token of its platform, and its learners' ids."""

    academy: int
    users: Sequence[int]
    token: str = field(repr=False)


async def run_exercises(base_url: str, school: School, seed: int, now_ms: int) -> dict[str, Any]:
    """Let the school's learners do exercises; return the counts, the author's report, and what does not add up.

    Raises:
        DemoError: a write was refused, or not taken in time.
    """
    learners = [
        Learner(seed, user, EXERCISES[at % len(EXERCISES)], now_ms - _WEEK_MS) for at, user in enumerate(school.users)
    ]
    async with _client(base_url, school) as client:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def send(learner: Learner) -> list[str]:
            async with slots:
                return await _send(client, learner)

        try:
            async with asyncio.timeout(_SENDING_LIMIT_S):
                wrong = await asyncio.gather(*map(send, learners))
        except TimeoutError:
            raise DemoError(f"{len(learners)} learners did not send within {_SENDING_LIMIT_S:.0f} s") from None
        except httpx.TransportError as error:
            raise DemoError(f"learners could not send: {type(error).__name__}") from None
        expected = expected_report(learners)
        report = await _report(client, {asset["asset_slug"]: asset for asset in expected})
    problems = [problem for problems in wrong for problem in problems]
    return {
        "learners": len(learners),
        "writes": len(learners) * (_SENDINGS + 1),
        "report": report,
        "problems": [*problems, *differences(expected, report)],
    }


def expected_report(learners: Sequence[Learner]) -> list[dict[str, Any]]:
    """Return what the report must say of learners who sent all they did, by slug."""
    assets: list[dict[str, Any]] = []
    for slug in sorted({learner.exercise.slug for learner in learners}):
        sent = [
            read_telemetry(orjson.dumps(learner.telemetry(len(learner.interactions))))
            for learner in learners
            if learner.exercise.slug == slug
        ]
        found = [indicators(telemetry) for telemetry in sent]
        by_step = zip(*map(step_facts, sent), strict=True)
        assets.append(
            {
                "asset_slug": slug,
                "learners": len(sent),
                "completed": sum(one.completion_rate == 100 for one in found),
                **{name: sum(getattr(one, name) for one in found) / len(found) for name in _SCORES},
                "steps": [_expected_step(facts) for facts in by_step],
            }
        )
    return assets


def _expected_step(facts: Sequence[StepFacts]) -> dict[str, Any]:
    opened = [one for one in facts if one.opened]
    return {
        "slug": facts[0].slug,
        "position": facts[0].position,
        "opened": len(opened),
        "completed": sum(one.completed for one in facts),
        "stuck": sum(not one.completed for one in opened),
        "skipped": sum(one.skipped for one in facts),
        **{
            name: sum(getattr(one, name) for one in opened) / len(opened) if opened else None
            for name in ("compilation_struggles", "test_struggles", "seconds")
        },
    }


def differences(expected: Sequence[dict[str, Any]], report: Sequence[dict[str, Any]]) -> list[str]:
    """Return in words what a report says otherwise; means may differ by what they are rounded by."""
    found = {asset["asset_slug"]: asset for asset in report}
    problems = []
    for asset in expected:
        slug = asset["asset_slug"]
        said = found.get(slug)
        if said is None:
            problems.append(f"the report has no asset {slug}")
            continue
        problems += [
            f"{name} of {slug} is {said[name]} in the report, not {asset[name]:.2f}"
            for name in _SCORES
            if not _is_like(said[name], asset[name])
        ]
        problems += [
            f"{name} of {slug} differ in the report"
            for name in ("learners", "completed", "steps")
            if not _is_like(said[name], asset[name])
        ]
    return problems


def _is_like(said: Any, expected: Any) -> bool:
    if isinstance(said, list) and isinstance(expected, list):
        return len(said) == len(expected) and all(map(_is_like, said, expected))
    if isinstance(said, dict) and isinstance(expected, dict):
        return said.keys() == expected.keys() and all(_is_like(said[name], expected[name]) for name in said)
    if isinstance(said, int | float) and isinstance(expected, int | float):
        return abs(said - expected) <= _ROUNDED_BY
    return bool(said == expected)


def where_stuck(report: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each asset: how its learners do, and the step at which most of them get stuck."""
    rows = []
    for asset in report:
        hardest = max(asset["steps"], key=lambda step: (step["stuck"], step["test_struggles"] or 0), default=None)
        rows.append(
            {
                "asset": asset["asset_slug"],
                "learners": asset["learners"],
                "completion %": round(asset["completion_rate"], 1),
                "engagement": round(asset["engagement_score"], 1),
                "frustration": round(asset["frustration_score"], 1),
                "most get stuck at": "nothing" if not hardest or not hardest["stuck"] else hardest["slug"],
                "stuck / opened": "" if not hardest else f"{hardest['stuck']} / {hardest['opened']}",
            }
        )
    return rows


def _client(base_url: str, school: School) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"Authorization": f"Token {school.token}", "Academy": str(school.academy)},
        timeout=_TIMEOUT_S,
        trust_env=False,  # the pipeline is on this machine: no proxy
        limits=httpx.Limits(max_connections=_AT_ONCE),
    )


async def _send(client: httpx.AsyncClient, learner: Learner) -> list[str]:
    """Send what a learner does as it goes, the last of it twice; return what the record does not say of it."""
    path = f"/v1/assignment/academy/asset/{learner.exercise.slug}/user/{learner.number}/telemetry"
    all_done = len(learner.interactions)
    body = b""
    for part in range(1, _SENDINGS + 1):
        body = orjson.dumps({"telemetry": learner.telemetry(all_done * part // _SENDINGS), "total_time": 60 * part})
        reply = await client.request("POST" if part == 1 else "PUT", path, params={"compute": "true"}, content=body)
        _check(reply, 201 if part == 1 else 200)
    again = await client.put(path, params={"compute": "true"}, content=body)  # as if the reply had got lost
    _check(again, 200)
    record = (await client.get(path)).json()
    wrong = [name for name, value in _expected(learner, body).items() if record.get(name) != value]
    return [f"{name} of user {learner.number} in {learner.exercise.slug} is not what was sent" for name in wrong]


def _expected(learner: Learner, body: bytes) -> dict[str, Any]:
    sent = orjson.loads(body)
    found = indicators(read_telemetry(orjson.dumps(sent["telemetry"])))
    return {
        **sent,
        "total_time": show_duration(sent["total_time"] * 1_000_000),
        "user": learner.number,
        "asset_slug": learner.exercise.slug,
        "metrics_algo_version": ALGO_VERSION,
        **asdict(found),
    }


def _check(reply: httpx.Response, status: int) -> None:
    if reply.status_code != status:
        raise DemoError(
            f"{reply.request.method} {reply.request.url.path} answered {reply.status_code}: {reply.text[:300]}"
        )


async def _report(client: httpx.AsyncClient, wanted: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the report of these assets, once it knows all learners, or as it is when the time is over."""
    end = time.monotonic() + _ARRIVAL_LIMIT_S
    while True:
        reply = await client.get("/v1/assignment/academy/report")
        _check(reply, 200)
        assets = [asset for asset in reply.json()["assets"] if asset["asset_slug"] in wanted]
        if {one["asset_slug"]: one["learners"] for one in assets} == {
            slug: asset["learners"] for slug, asset in wanted.items()
        } or time.monotonic() > end:
            return assets
        await asyncio.sleep(_POLL_S)
