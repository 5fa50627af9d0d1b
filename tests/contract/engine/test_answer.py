"""What an answer does with a client that stops reading, and with one that leaves."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future

import pytest
from starlette.types import Message

from deploy.local.engine import answer as answers
from deploy.local.engine.database import Outcome, Task
from deploy.local.engine.errors import ClientGoneError
from deploy.local.engine.pipe import Pipe


async def test_a_client_that_stops_reading_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "STALL_S", 0.1)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    pipe = Pipe()
    os.write(pipe.write_fd, b"x" * answers.FIRST_BYTES)
    try:
        with pytest.raises(ClientGoneError):
            await answers.Answer(send, "id").rows(pipe, Future(), Task(format="TSV"), wait=False, codec="")
    finally:
        os.close(pipe.write_fd)
        pipe.close()


async def test_a_waiting_answer_notices_that_the_client_left() -> None:
    async def send(message: Message) -> None:
        raise AssertionError(message)

    running: Future[Outcome] = Future()
    pipe = Pipe()
    try:
        waiting = asyncio.ensure_future(
            answers.Answer(send, "id").rows(pipe, running, Task(format="TSV"), wait=False, codec="")
        )
        await asyncio.sleep(0.05)
        pipe.abort(ClientGoneError())
        with pytest.raises(ClientGoneError):
            await waiting
    finally:
        os.close(pipe.write_fd)
        pipe.close()
