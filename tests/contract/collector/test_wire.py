"""The collector behind a real HTTP server: what only shows on a connection."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from prometheus_client import REGISTRY

from ingest.app import create_app
from midstream.registry.credentials import Issued
from midstream.settings import Settings
from tests.support.ports import free_ports

from .conftest import PATH, check_form
from .doubles import MemoryPublisher

ROOT = Path(__file__).resolve().parents[3]
BODY = json.dumps({"id": "api.telemetry", "events": [{"eid": "LOG", "mid": "1"}]}).encode()


@asynccontextmanager
async def listening(settings: Settings, publisher: MemoryPublisher) -> AsyncIterator[int]:
    config = uvicorn.Config(
        create_app(settings, publisher),  # type: ignore[arg-type]
        host="127.0.0.1",
        port=0,
        http="httptools",
        log_config=None,
        lifespan="on",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


@pytest.fixture
async def port(settings: Settings, publisher: MemoryPublisher) -> AsyncIterator[int]:
    changed = settings.model_copy(update={"body_timeout_ms": 500, "max_body_bytes": 100_000})
    async with listening(changed, publisher) as number:
        yield number


def head(token: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {PATH} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *lines, "", ""]).encode()


async def ask(port: int, *parts: bytes, pause_s: float = 0.0) -> tuple[int, dict[str, str], bytes]:
    """Send the parts, each after a pause, and return status, headers and body of the reply."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            return int(status.split()[1]), headers, body
    finally:
        writer.close()


def in_flight() -> float:
    return REGISTRY.get_sample_value("midstream_in_flight_bytes") or 0.0


async def test_body_in_pieces(port: int, publisher: MemoryPublisher, app_credential: Issued) -> None:
    opening = head(app_credential.token, f"Content-Length: {len(BODY)}")
    status, _, _ = await ask(port, opening, BODY[:10], BODY[10:], pause_s=0.05)
    assert status == 200
    assert publisher.published[0][1] == BODY


async def test_chunked_body(port: int, publisher: MemoryPublisher, app_credential: Issued) -> None:
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:])]
    status, _, _ = await ask(port, head(app_credential.token, "Transfer-Encoding: chunked"), *chunks, b"0\r\n\r\n")
    assert status == 200
    assert publisher.published[0][1] == BODY


async def test_chunked_body_without_end_is_413(port: int, app_credential: Issued) -> None:
    chunk = b"%x\r\n%s\r\n" % (20_000, b" " * 20_000)
    status, _, body = await ask(port, head(app_credential.token, "Transfer-Encoding: chunked"), *[chunk] * 6)
    assert status == 413
    assert json.loads(body)["params"]["err"] == "BODY_TOO_LARGE"
    assert in_flight() == 0


async def test_announced_size_is_413_before_the_body(port: int, app_credential: Issued) -> None:
    status, _, _ = await ask(port, head(app_credential.token, "Content-Length: 100001"))
    assert status == 413


async def test_expect_continue_is_answered_by_the_refusal(port: int, app_credential: Issued) -> None:
    lines = ("Content-Length: 100001", "Expect: 100-continue")
    assert (await ask(port, head(app_credential.token, *lines)))[0] == 413


@pytest.mark.parametrize("sent", [b"", b'{"events":'])
async def test_slow_body_is_408_and_the_connection_ends(port: int, app_credential: Issued, sent: bytes) -> None:
    opening = head(app_credential.token, f"Content-Length: {len(BODY)}")
    began = asyncio.get_running_loop().time()
    status, headers, body = await ask(port, opening, sent)
    assert status == 408
    assert headers["connection"] == "close"
    assert json.loads(body)["params"]["err"] == "BODY_TIMEOUT"
    assert 0.4 < asyncio.get_running_loop().time() - began < 3
    assert in_flight() == 0


async def test_drip_does_not_extend_the_time_limit(port: int, app_credential: Issued) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head(app_credential.token, f"Content-Length: {len(BODY)}"))
    began = asyncio.get_running_loop().time()
    answer = asyncio.create_task(reader.readuntil(b"\r\n"))
    while not answer.done():
        writer.write(b"{")
        await asyncio.sleep(0.02)
    writer.close()
    assert b" 408 " in await answer
    assert asyncio.get_running_loop().time() - began < 1.5


async def test_client_that_goes_away_leaves_nothing(
    port: int, publisher: MemoryPublisher, app_credential: Issued
) -> None:
    before = REGISTRY.get_sample_value("midstream_requests_total", {"status": "499"}) or 0
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(app_credential.token, f"Content-Length: {len(BODY)}") + BODY[:20])
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.transport.abort()
    async with asyncio.timeout(5):
        while (REGISTRY.get_sample_value("midstream_requests_total", {"status": "499"}) or 0) < before + 20:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert publisher.published == []
    assert in_flight() == 0
    assert (await ask(port, head(app_credential.token, f"Content-Length: {len(BODY)}"), BODY))[0] == 200


@pytest.mark.parametrize(
    "line",
    ["X-Device-Id: \xff\xfe", "X-Device-Id:", "X-Device-Id: " + "x" * 30_000, "Content-Encoding:", "Content-Type:",
     "Authorization: Bearer x", "X-Device-Id: a\r\nX-Device-Id: b", "Content-Type: application/json;;;=", "X: \t"],
)  # fmt: skip
async def test_header_oddities_get_an_answer(port: int, app_credential: Issued, line: str) -> None:
    lines = head(app_credential.token, f"Content-Length: {len(BODY)}").decode().removesuffix("\r\n\r\n")
    status, _, body = await ask(port, f"{lines}\r\n{line}\r\n\r\n".encode("latin-1"), BODY)
    assert status in (200, 401)
    assert json.loads(body)["ets"]


async def test_refused_requests_do_not_end_the_connection(port: int, app_credential: Issued) -> None:
    headers = {"Authorization": f"Bearer {app_credential.token}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        for content, status in ((b"no", 400), (BODY, 200), (b"x" * 200_000, 413), (BODY, 200)):
            reply = await client.post(PATH, content=content)
            assert reply.status_code == status
            check_form(reply)


async def told(client: httpx.AsyncClient, line: str) -> None:
    """Wait until the metrics have a line: they are told once a second."""
    async with asyncio.timeout(5):
        while f"\n{line}\n" not in (await client.get("/metrics")).text:  # noqa: ASYNC110  asks another party
            await asyncio.sleep(0.1)


class TestOtherPages:
    async def test_health_and_metrics(self, port: int, app_credential: Issued) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await client.post(PATH, content=BODY, headers={"Authorization": f"Bearer {app_credential.token}"})
            assert (await client.get("/health")).status_code == 200
            metrics = (await client.get("/metrics")).text
            for name in ("midstream_requests_total", "midstream_received_events_total", "midstream_in_flight_bytes"):
                assert name in metrics
            assert "\nmidstream_spool_limit_bytes 1.073741824e+09\n" in metrics
            assert '\nmidstream_disk_free_bytes{disk="spool"} ' in metrics

    async def test_accepting_follows_kafka_spool_and_bytes(
        self, settings: Settings, publisher: MemoryPublisher, app_credential: Issued
    ) -> None:
        changed = settings.model_copy(update={"max_in_flight_bytes": len(BODY)})
        async with (
            listening(changed, publisher) as number,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{number}") as client,
        ):
            assert (await client.get("/accepting")).status_code == 200
            publisher.ready = False
            assert (await client.get("/accepting")).status_code == 200  # the spool takes it
            hidden = settings.spool_folder.with_name("hidden")
            settings.spool_folder.rename(hidden)
            headers = {"Authorization": f"Bearer {app_credential.token}"}
            reply = await client.post(PATH, content=BODY, headers=headers)
            assert (reply.status_code, reply.json()["params"]["err"]) == (503, "KAFKA_UNAVAILABLE")
            assert (await client.get("/accepting")).status_code == 503
            await told(client, "midstream_collector_accepting 0.0")
            publisher.ready = True
            assert (await client.get("/accepting")).status_code == 200
            await told(client, "midstream_collector_accepting 1.0")
            hidden.rename(settings.spool_folder)
            publisher.gate = asyncio.Event()
            waiting = asyncio.create_task(client.post(PATH, content=BODY, headers=headers))
            async with asyncio.timeout(5):
                while (await client.get("/accepting")).status_code == 200:  # noqa: ASYNC110  asks another party
                    await asyncio.sleep(0.01)
            publisher.gate.set()
            assert (await waiting).status_code == 200
            assert (await client.get("/accepting")).status_code == 200

    async def test_unknown_paths_and_methods(self, port: int) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for path in ("/", "/v1", f"{PATH}/", "/api/data/v1", "/..%2f", "/%ff"):
                reply = await client.post(path, content=BODY)
                assert reply.status_code == 404
                check_form(reply)
            refused = await client.post("/accepting")
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET")

    async def test_lifespan_stops_the_publisher(self, settings: Settings) -> None:
        publisher = MemoryPublisher()
        async with listening(settings, publisher):
            assert publisher.stopped_after_s is None
        assert publisher.stopped_after_s == pytest.approx(settings.drain_timeout_ms / 1000, abs=1)
        assert publisher.marks[-1].open is False


async def test_sigterm_finishes_what_is_under_way(home: Path, app_credential: Issued) -> None:
    (number,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contract.collector.server", str(home), str(number), cwd=ROOT
    )
    try:
        headers = {"Authorization": f"Bearer {app_credential.token}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{number}", headers=headers, timeout=10) as client:
            async with asyncio.timeout(20):
                while True:
                    try:
                        if (await client.get("/accepting")).status_code == 200:
                            break
                    except httpx.ConnectError:
                        await asyncio.sleep(0.05)
            waiting = [asyncio.create_task(client.post(PATH, content=BODY)) for _ in range(10)]
            await asyncio.sleep(0.4)
            process.send_signal(signal.SIGTERM)
            assert [(await reply).status_code for reply in waiting] == [200] * 10
        async with asyncio.timeout(10):
            await process.wait()
        assert process.returncode in (0, -signal.SIGTERM)  # uvicorn raises the signal again once it has finished
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
