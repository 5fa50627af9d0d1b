"""The one address on one machine: who answers which path, and how a port in use is told."""

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Router

from deploy.local.web import Application
from midstream.settings import Settings
from midstream.web import BindError, bind, prepare_metrics_folder, server_config


def answering(words: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": words})

    return app


class FakeCollector:
    handled = ("/api/data/v1/telemetry", "/v1/telemetry")

    def handles(self, path: str) -> bool:
        return path in self.handled

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await answering(b"collector")(scope, receive, send)


async def test_the_path_alone_decides_who_answers() -> None:
    application = Application(FakeCollector(), answering(b"api"), Router())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://midstream") as client:
        for path in ("/v1/telemetry", "/api/data/v1/telemetry?x=1"):
            assert (await client.put(path)).text == "collector"
        for path in ("/", "/health", "/v1/telemetry/", "/v1/validate"):
            assert (await client.post(path)).text == "api"


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=rf"port {port}: .*MIDSTREAM_PORT"):
            bind("127.0.0.1", port)
    bind("127.0.0.1", port).close()


def test_a_host_that_is_not_ours_is_named() -> None:
    with pytest.raises(BindError, match=r"192\.0\.2\.1"):
        bind("192.0.2.1", 0)


def test_counts_of_a_former_run_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    folder = tmp_path / "run" / "metrics-web"
    folder.mkdir(parents=True)
    (folder / "counter_1.db").write_bytes(b"old")
    prepare_metrics_folder(Settings(home=tmp_path), "web")
    assert list(folder.iterdir()) == []


def test_proxies_are_believed_only_when_named() -> None:
    assert server_config(Settings(), "a:b").proxy_headers is False
    config = server_config(Settings(forwarded_allow_ips="10.0.0.1"), "a:b")
    assert (config.proxy_headers, config.forwarded_allow_ips) == (True, "10.0.0.1")
