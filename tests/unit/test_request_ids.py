"""Ids of requests, and the log lines about requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from midstream import request_log
from midstream.request_ids import RequestId, add_request_id, begin_request, current_request_id
from midstream.request_log import SLOW_S, RequestLog


@pytest.mark.parametrize("given", [b"a", b"0a/b+c=d:e.f-g_h@i", b"x" * 128])
def test_a_well_formed_id_is_kept(given: bytes) -> None:
    request_id = RequestId(given)
    assert request_id.text == given.decode()
    assert not request_id.is_ours
    assert request_id.header == (b"x-request-id", given)


@pytest.mark.parametrize(
    "given", [None, b"", b"x" * 129, b"a b", b"a\nb", b"a\n", b'"', b"\xff", "é".encode(), b"\x1b[0m"]
)
def test_else_one_is_made(given: bytes | None) -> None:
    made = {RequestId(given).text for _ in range(100)}
    assert len(made) == 100
    assert all(len(one) == 36 for one in made)
    assert RequestId(given).is_ours


def test_each_task_has_its_own_and_what_outlives_the_request_has_none() -> None:
    lines: dict[str, Any] = {}

    async def upkeep(name: str, until: asyncio.Event) -> None:
        await until.wait()
        lines[f"{name} after"] = dict(add_request_id(None, "info", {}))

    async def answer(name: str, until: asyncio.Event) -> asyncio.Task[None]:
        request_id = begin_request(name.encode())
        left = asyncio.create_task(upkeep(name, until))
        await asyncio.sleep(0)
        lines[name] = dict(add_request_id(None, "info", {}))
        assert current_request_id() == name
        RequestLog().end(request_id, 200, 0.1, "GET", "/")
        assert current_request_id() == ""
        return left

    async def both() -> None:
        until = asyncio.Event()
        left = await asyncio.gather(answer("one", until), answer("two", until))
        until.set()
        await asyncio.gather(*left)

    asyncio.run(both())
    assert lines == {"one": {"request_id": "one"}, "two": {"request_id": "two"}, "one after": {}, "two after": {}}
    assert add_request_id(None, "info", {}) == {}


def test_failed_and_slow_requests_are_told_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = CapturingLogger()
    monkeypatch.setattr(request_log, "_log", logger)
    log = RequestLog(clock=lambda: 1.0)
    log.end(RequestId(b"a"), 200, SLOW_S - 1, "GET", "/a")
    log.end(RequestId(b"a"), 429, 0.1, "GET", "/a")
    log.end(RequestId(b"a"), 503, 0.12345, "POST", "/b" + "x" * 1000)
    log.end(RequestId(b"a"), 200, SLOW_S + 1, "GET", "/c")
    assert [(call.method_name, call.args, call.kwargs["status"], call.kwargs["seconds"]) for call in logger.calls] == [
        ("warning", ("request.failed",), 503, 0.123),
        ("warning", ("request.slow",), 200, SLOW_S + 1),
    ]
    assert len(logger.calls[0].kwargs["path"]) == 200
    for _ in range(1_000):
        log.refuse("/d" + "x" * 1000, "no token")
    assert len(logger.calls) == 10
    assert (logger.calls[-1].method_name, logger.calls[-1].args) == ("info", ("request.unauthorized",))
    assert (len(logger.calls[-1].kwargs["path"]), logger.calls[-1].kwargs["reason"]) == (200, "no token")


def test_so_many_lines_a_second_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, now = CapturingLogger(), [1.0]
    monkeypatch.setattr(request_log, "_log", logger)
    log = RequestLog(clock=lambda: now[0])
    for _ in range(1_000):
        log.end(RequestId(None), 503, 0.0, "POST", "/")
    assert len(logger.calls) == 10
    now[0] = 2.0
    log.end(RequestId(None), 503, 0.0, "POST", "/")
    assert [call.kwargs["left_out"] for call in logger.calls[-2:]] == [None, 990]
