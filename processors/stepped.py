"""A coroutine's first step, made without a task: most have nothing to wait for."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any


def after_first_step(begun: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any] | None:
    """Run a coroutine until it waits for something; return what goes on from there, None if it ended before.

    Call it in the event loop. What the coroutine raises in this step is raised.
    """
    try:
        awaited = begun.send(None)
    except StopIteration:
        return None
    return _go_on(begun, awaited)


async def _go_on(begun: Coroutine[Any, Any, Any], awaited: Any) -> Any:
    return await _rest_of(begun, awaited)


@types.coroutine
def _rest_of(begun: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, Any]:
    while True:
        try:
            value = yield awaited
        except BaseException as error:  # noqa: BLE001 - its own to handle: a cancellation, for one
            step = partial(begun.throw, error)
        else:
            step = partial(begun.send, value)
        try:
            awaited = step()
        except StopIteration as end:
            return end.value
