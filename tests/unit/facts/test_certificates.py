"""When certificates expire, as real TLS endpoints show them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from midstream.metrics import CERTIFICATE_EXPIRES_SECONDS
from midstream.settings import Settings, SettingsError
from serve.facts import certificates
from serve.facts.certificates import OWN, Certificates, endpoints_of, expires_at

EXPIRES = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


def told() -> dict[str, float]:
    return {sample.labels["endpoint"]: sample.value for sample in CERTIFICATE_EXPIRES_SECONDS.collect()[0].samples}


@asynccontextmanager
async def endpoint(*, asks_for_certificate: bool = False) -> AsyncIterator[int]:
    """A TLS server whose certificate nobody has a reason to trust."""
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", not_after=EXPIRES).configure_cert(context)
    if asks_for_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        ca.configure_trust(context)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("asks", [False, True])
async def test_an_endpoint_shows_when(asks: bool) -> None:
    async with endpoint(asks_for_certificate=asks) as port:
        assert await expires_at("127.0.0.1", port) == EXPIRES.timestamp()


async def test_each_is_told_and_one_that_is_silent_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_WAIT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        unheard = f"127.0.0.1:{silent.getsockname()[1]}"
        async with endpoint() as port:
            settings = Settings(clickhouse=f"https://u:p@{unheard}/db", public_url=f"https://127.0.0.1:{port}")
            await Certificates(settings).look()
    assert told()[f"127.0.0.1:{port}"] == EXPIRES.timestamp()
    assert unheard not in told()


async def test_our_own_is_told_and_one_that_cannot_be_read_ends_nothing(tmp_path: Path) -> None:
    ours = trustme.CA().issue_cert("client.example", not_after=EXPIRES)
    file = tmp_path / "ours.pem"
    looked = Certificates(Settings(kafka_certificate=file))
    await looked.look()
    file.write_text("half a fi")
    await looked.look()
    assert OWN not in told()
    file.write_bytes(b"".join(one.bytes() for one in ours.cert_chain_pems))
    await looked.look()
    assert told()[OWN] == EXPIRES.timestamp()


def test_only_what_has_tls_is_looked_at() -> None:
    plain = Settings(clickhouse="http://c:8123/db", kafka="k:9092", public_url="http://example.org/x")
    assert endpoints_of(plain) == []
    both = Settings(clickhouse="https://c/db", public_url="https://example.org")
    assert endpoints_of(both) == [("c", 8443), ("example.org", 443)]
    secured = Settings(clickhouse="http://c/db", kafka="k1:9093, [::1]:9094,k2", kafka_security="ssl")
    assert endpoints_of(secured) == [("k1", 9093), ("::1", 9094), ("k2", 9092)]
    with pytest.raises(SettingsError):
        endpoints_of(Settings(clickhouse="https://c:nowhere/db"))
