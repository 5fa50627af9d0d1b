"""What an insert sends, to the byte, and how often."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import clickhouse_connect
import pytest
from clickhouse_connect.driver.httpclient import HttpClient

from midstream.clickhouse.client import Body, ClickHouse, ClickHouseError, parse_dsn

STATEMENT = b"INSERT INTO learning_events (`mid`, `a b`) FORMAT ArrowStream\n"


class Server:
    """Answers requests as told, 200 by default, or hangs up in place of an answer. Keeps their bodies."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.targets: list[bytes] = []
        self.hang_ups = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End what it waits for: the next connection, or the next request on the one that is kept alive."""
        for waiting in (self._listener, self._connection):
            if waiting is not None and waiting.fileno() != -1:
                waiting.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                self._connection = connection
                connection.settimeout(20)
                while target := stream.readline():
                    size = 0
                    while (header := stream.readline()).strip():
                        name, _, value = header.partition(b":")
                        assert name.lower() != b"transfer-encoding"
                        if name.lower() == b"content-length":
                            size = int(value)
                    self.targets.append(target)
                    self.bodies.append(stream.read(size))
                    if self.hang_ups:
                        self.hang_ups -= 1
                        break
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX-ClickHouse-Query-Id: q\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def clickhouse(server: Server, monkeypatch: pytest.MonkeyPatch) -> ClickHouse:
    monkeypatch.setattr(HttpClient, "_init_common_settings", lambda *_, **__: None)  # asks the server who it is
    client = clickhouse_connect.get_client(
        interface="http", host="127.0.0.1", port=server.port, autogenerate_session_id=False, send_receive_timeout=20
    )
    return ClickHouse(client, parse_dsn(f"http://127.0.0.1:{server.port}/midstream"))


def insert(clickhouse: ClickHouse, body: Body, tries: int) -> list[int]:
    made: list[int] = []
    clickhouse.insert_stream("learning_events", ["mid", "a b"], body, "token", tries=tries, before_try=made.append)
    return made


@pytest.mark.parametrize(
    "body", [b"block", [memoryview(bytearray(b"bl")), b"ock"], [], b""], ids=["whole", "pieces", "no pieces", "empty"]
)
def test_the_statement_comes_before_the_block_in_one_body(clickhouse: ClickHouse, server: Server, body: Body) -> None:
    insert(clickhouse, body, 1)
    insert(clickhouse, body, 1)
    assert server.bodies == [STATEMENT + (b"block" if body else b"")] * 2
    assert all(b"insert_deduplication_token=token" in target and b"INSERT" not in target for target in server.targets)


def test_only_what_is_counted_as_a_try_is_sent(clickhouse: ClickHouse, server: Server) -> None:
    """The driver would repeat bytes by itself when the server hangs up: an insert tried twice that counts as one."""
    server.hang_ups = 1
    with pytest.raises(ClickHouseError):
        insert(clickhouse, b"block", 1)
    assert len(server.bodies) == 1
    server.hang_ups = 1
    assert insert(clickhouse, b"block", 2) == [0, 1]
    assert len(server.bodies) == 3
    assert len(set(server.bodies)) == 1
