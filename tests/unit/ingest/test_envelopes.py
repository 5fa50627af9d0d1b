import asyncio
import gc
import gzip
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest import envelopes
from ingest.envelopes import EnvelopeReader
from ingest.replies import ErrorCode, RefusedError
from midstream.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, registry="")


@pytest.fixture
def reader(settings: Settings) -> Iterator[EnvelopeReader]:
    opened = EnvelopeReader(settings)
    yield opened
    opened.close()


async def test_ordinary_body_is_read_at_once(reader: EnvelopeReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_thread", None)
    for body in (b'{"events":[{},{}]}', gzip.compress(b'{"events":[{},{}]}')):
        assert len((await reader.read(body)).events) == 2


@pytest.mark.parametrize(
    "body",
    [b'{"events":[{"a":NaN},{}]}', b'{"events":[{},"' + b"x" * 1_000_000 + b'"]}',
     gzip.compress(b'{"events":[{},"' + b"x" * 3_000_000 + b'"]}')],
)  # fmt: skip
async def test_what_may_take_long_is_read_in_the_thread(
    reader: EnvelopeReader, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    names: list[str] = []
    whole = envelopes.read_envelope

    def recording(text: bytes) -> object:
        names.append(threading.current_thread().name)
        return whole(text)

    monkeypatch.setattr(envelopes, "read_envelope", recording)
    assert len((await reader.read(body)).events) == 2
    assert len(names) == 1
    assert names[0].startswith("envelope")


async def test_hostile_body_does_not_hold_up_the_event_loop(settings: Settings) -> None:
    reader = EnvelopeReader(settings.model_copy(update={"max_batch_events": 400_000}))
    hostile = gzip.compress(b'{"events":[' + b'{"a":[NaN,{"b":"x"}]},' * 300_000 + b"{}]}")
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    assert len((await reader.read(hostile)).events) == 300_001
    watcher.cancel()
    reader.close()
    assert longest < 0.5


@pytest.mark.parametrize("element", [b"1,", b"{},", b"1000,", b"[NaN],"])
@pytest.mark.parametrize("end", [b"1]}", b"", b"1]"])
async def test_millions_of_elements_take_no_memory(reader: EnvelopeReader, element: bytes, end: bytes) -> None:
    start = b'{"events":['
    body = gzip.compress(start + element * ((8 * 1024 * 1024 - 20) // len(element)) + end, 1)
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError) as refused:
            await reader.read(body)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.value.code is ErrorCode.BODY_TOO_LARGE
    assert peak_bytes < 40_000_000  # the inflated body, and what its inflation takes


async def test_queue_of_the_thread_is_bounded(reader: EnvelopeReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelopes, "_MAX_WAITING", 2)
    gate = threading.Event()

    def blocked(body: bytes) -> None:
        gate.wait(10)
        raise envelopes.EnvelopeError("no batch")

    monkeypatch.setattr(envelopes, "read_envelope", blocked)
    waiting = [asyncio.create_task(reader.read(b"{")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(RefusedError) as refused:
        await reader.read(b"{")
    assert refused.value.code is ErrorCode.OVERLOADED
    gate.set()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, RefusedError)
        assert result.code is ErrorCode.INVALID_BATCH


async def test_wait_for_the_thread_is_bounded(reader: EnvelopeReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelopes, "_TIMEOUT_S", 0.05)
    gate = threading.Event()
    monkeypatch.setattr(envelopes, "read_envelope", lambda _body: gate.wait(10))
    with pytest.raises(RefusedError) as refused:
        await reader.read(b"{")
    assert refused.value.code is ErrorCode.OVERLOADED
    gate.set()


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(b" " * 9_000_000),
        gzip.compress(b'{"events":[' + b"1," * 400_000 + b"]}"),
        gzip.compress(b'{"events":["' + b"x" * 1_000_000 + b'"]}')[:-9],
        gzip.compress(b'{"events":[]}')[:-9],
        b'{"events":[}',
    ],
    ids=["too large", "no JSON", "cut short", "short and cut short", "short and no JSON"],
)
async def test_refused_body_is_let_go_at_once(reader: EnvelopeReader, body: bytes) -> None:
    """Not when the garbage collector comes by, which it seldom does: these are megabytes a request."""
    body = bytes(bytearray(body))  # the one of the parameter is held by pytest
    gc.collect()
    gc.disable()
    try:
        held = sys.getrefcount(body)
        for _ in range(3):
            with pytest.raises(RefusedError):
                await reader.read(body)
        for _ in range(100):  # the thread drops its task a moment after its result is there
            if sys.getrefcount(body) == held:
                break
            await asyncio.sleep(0.01)
        assert sys.getrefcount(body) == held
    finally:
        gc.enable()
