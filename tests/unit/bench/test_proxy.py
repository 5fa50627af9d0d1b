"""The proxy does to connections what it says, and ends without a trace."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.proxy import Fault, Proxy
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

QUIET_S = 0.3
TIMEOUT_S = 5.0
ANSWER = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"


class Echo:
    """A server that answers everything with the same in capitals, and remembers what it was asked."""

    def __init__(self, port: int) -> None:
        self.asked = b""
        self._listener = socket.create_server(("127.0.0.1", port))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.asked += data
                    connection.sendall(data.upper())
            except OSError:
                return

    def close(self) -> None:
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()


@pytest.fixture
def ports() -> tuple[int, int]:
    shown, real = free_ports(2)
    return shown, real


@pytest.fixture
def server(ports: tuple[int, int]) -> Iterator[Echo]:
    echo = Echo(ports[1])
    yield echo
    echo.close()


@pytest.fixture
def proxy(ports: tuple[int, int], server: Echo) -> Iterator[Proxy]:
    with Proxy(*ports, error=ANSWER, seed=1) as running:
        yield running


@contextmanager
def connected(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=TIMEOUT_S) as client:
        yield client


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(65536)


def answers_nothing(client: socket.socket) -> bool:
    client.settimeout(QUIET_S)
    try:
        return client.recv(65536) == b"\0never"
    except TimeoutError:
        return True
    finally:
        client.settimeout(TIMEOUT_S)


def is_reset(client: socket.socket) -> bool:
    try:
        return client.recv(65536) == b""
    except ConnectionError:
        return True


def test_it_forwards(proxy: Proxy) -> None:
    with connected(proxy) as one, connected(proxy) as other:
        assert ask(one, b"one") == b"ONE"
        assert ask(other, b"other") == b"OTHER"
        assert ask(one, b"again") == b"AGAIN"


def test_large_bodies_come_through_whole(proxy: Proxy, server: Echo) -> None:
    data = bytes(range(97, 123)) * 100_000
    with connected(proxy) as client:
        threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
        got = b""
        while len(got) < len(data):
            got += client.recv(1 << 20)
    assert got == data.upper()


def test_the_servers_end_is_the_clients(proxy: Proxy, server: Echo) -> None:
    server.close()
    with connected(proxy) as client:
        assert is_reset(client)


def test_cut(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert ask(client, b"before") == b"BEFORE"
        proxy.set(Fault.CUT)
        assert is_reset(client)
    with connected(proxy) as client:
        assert is_reset(client)
    proxy.set(Fault.NONE)
    with connected(proxy) as client:
        assert ask(client, b"after") == b"AFTER"


@pytest.mark.parametrize("old", [True, False], ids=["a connection that was there", "a new one"])
def test_still_in_both_directions(proxy: Proxy, server: Echo, old: bool) -> None:
    with connected(proxy) as before:
        assert ask(before, b"x") == b"X"
        proxy.set(Fault.STILL)
        with connected(proxy) as after:
            client = before if old else after
            client.sendall(b"late")
            assert answers_nothing(client)
            assert b"late" not in server.asked
            proxy.set(Fault.NONE)  # what waited comes through, as with TCP over a network that is back
            assert client.recv(100) == b"LATE"


def test_still_requests(proxy: Proxy, server: Echo) -> None:
    with connected(proxy) as client:
        proxy.set(Fault.STILL_REQUESTS)
        client.sendall(b"late")
        assert answers_nothing(client)
        assert server.asked == b""
        proxy.set(Fault.NONE)
        assert client.recv(100) == b"LATE"


def test_still_answers(proxy: Proxy, server: Echo) -> None:
    with connected(proxy) as client:
        proxy.set(Fault.STILL_ANSWERS)
        client.sendall(b"done")
        wait_until("the server was asked", lambda: server.asked == b"done", TIMEOUT_S)
        assert answers_nothing(client)
        proxy.set(Fault.NONE)
        assert client.recv(100) == b"DONE"


def test_request_arrived_and_answer_lost(proxy: Proxy, server: Echo) -> None:
    with connected(proxy) as client:
        assert ask(client, b"a") == b"A"
        proxy.set(Fault.ANSWER_LOST)
        client.sendall(b"done")
        assert is_reset(client)
        assert server.asked == b"adone"
    assert proxy.lost_answers == 1


def test_errors(proxy: Proxy, server: Echo) -> None:
    """Every request gets the error; some are carried out all the same."""
    proxy.set(Fault.ERROR)
    request = b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody"
    for _ in range(12):
        with connected(proxy) as client:
            assert ask(client, request) == ANSWER
    assert proxy.errors == 12
    assert 0 < proxy.errors_done < 12
    assert server.asked == request * proxy.errors_done


def test_chunked_requests_are_read_whole(proxy: Proxy, server: Echo) -> None:
    proxy.set(Fault.ERROR)
    request = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    while not proxy.errors_done:
        with connected(proxy) as client:
            for byte in request:
                client.sendall(bytes([byte]))
            assert client.recv(100) == ANSWER
    assert server.asked == request


INSERT = b"POST /?database=d&insert_deduplication_token=t HTTP/1.1\r\nhost: h\r\n\r\n"
SELECT = b"POST /?database=d HTTP/1.1\r\nhost: h\r\n\r\nSELECT 'insert_deduplication_token='"


def took_s(client: socket.socket, text: bytes) -> float:
    began = time.monotonic()
    assert ask(client, text) == text.upper()
    return time.monotonic() - began


def test_the_answer_to_an_insert_is_late_and_no_other(ports: tuple[int, int], server: Echo) -> None:
    with Proxy(*ports, insert_s=1.0) as proxy, connected(proxy) as client:
        assert took_s(client, INSERT) >= 1.0
        assert took_s(client, SELECT) < 1.0
        assert took_s(client, INSERT) >= 1.0


def test_what_all_clients_send_is_bounded(ports: tuple[int, int], server: Echo) -> None:
    with Proxy(*ports, bytes_per_s=100_000) as proxy, connected(proxy) as one, connected(proxy) as other:
        began = time.monotonic()
        one.sendall(b"x" * 50_000)
        other.sendall(b"y" * 50_000)
        for client in (one, other):
            got = 0
            while got < 50_000:
                got += len(client.recv(65536))
        assert time.monotonic() - began >= 0.9


def test_nothing_is_left(ports: tuple[int, int], server: Echo) -> None:
    threads = threading.active_count()
    with Proxy(*ports) as proxy, connected(proxy) as client:
        proxy.set(Fault.STILL)
        client.sendall(b"x")
        running = threading.active_count()
        assert running > threads
    wait_until("its thread has ended", lambda: threading.active_count() < running, TIMEOUT_S)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]), timeout=1)
