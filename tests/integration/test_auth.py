"""Tokens are made and ended by the command; every process sees it within a second."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlsplit

import jwt
import psutil
import pytest

from tests.integration.outside import Outside, check_reply, make_body, make_event, run_cli, unique, web_workers
from tests.integration.partners import Partner

SEEN_S = 1.0
"""How long a change may take to be seen by every process."""

_MARGIN_S = 0.25  # of this test's own requests on a busy machine


class Connection:
    """A connection that stays with one web worker."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self._http.connect()
        self.port: int = self._http.sock.getsockname()[1]

    def close(self) -> None:
        self._http.close()

    def status(self, token: str, method: str = "POST", path: str = "/v1/telemetry") -> int:
        """Send a request with a token; return the reply's status."""
        return self.ask(method, path, {"authorization": f"Bearer {token}"})

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b'{"events": []}') -> int:
        """Send a request; return the reply's status."""
        self._http.request(method, path, body if method != "GET" else None, headers)
        with self._http.getresponse() as response:
            response.read()
            return response.status


@pytest.fixture(scope="module")
def connections(outside: Outside) -> Iterator[dict[int, Connection]]:
    """A connection to each web worker, by its process id."""
    port = int(str(outside.pipeline.settings["port"]))
    workers = [psutil.Process(pid) for pid in web_workers(outside.pipeline)]
    assert len(workers) == 2
    found: dict[int, Connection] = {}
    with ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(closing(Connection(port)))
            assert connection.status("nobody") == 401  # it has been accepted by now
            for worker in workers:
                if any(there.raddr and there.raddr.port == connection.port for there in worker.net_connections("tcp4")):
                    found.setdefault(worker.pid, connection)
            if len(found) == len(workers):
                break
        assert len(found) == len(workers), "one web worker got all connections"
        yield found


def seconds_until(connections: dict[int, Connection], token: str, status: int) -> float:
    """Return how long it takes until every worker answers a token with this status, and keeps to it."""
    began = time.monotonic()

    def wait(connection: Connection) -> float:
        while connection.status(token) != status:
            assert time.monotonic() - began < 10, f"not {status} within 10 s"
            time.sleep(0.02)
        return time.monotonic() - began

    with ThreadPoolExecutor(len(connections)) as threads:
        longest = max(threads.map(wait, connections.values()))
    assert {connection.status(token) for connection in connections.values()} == {status}
    return longest


def test_a_token_lives_from_create_to_revoke_in_every_process(
    outside: Outside, connections: dict[int, Connection]
) -> None:
    name = unique("app")
    guess = jwt.encode({"iss": name}, "a secret that nobody has been given", "HS256")
    assert seconds_until(connections, guess, 401) < SEEN_S
    token = outside.cli("token", "create", name)
    assert seconds_until(connections, token, 200) < SEEN_S + _MARGIN_S
    assert seconds_until(connections, guess, 401) < SEEN_S
    outside.cli("token", "revoke", name)
    assert seconds_until(connections, token, 401) < SEEN_S + _MARGIN_S


def test_a_rotated_secret_ends_the_tokens_of_the_old_one(outside: Outside, connections: dict[int, Connection]) -> None:
    key = unique("key")
    old = outside.cli("credential", "create", unique("service"), "--key", key)
    old_token = jwt.encode({"iss": key}, old, "HS256")
    assert seconds_until(connections, old_token, 200) < SEEN_S + _MARGIN_S
    new = outside.cli("credential", "rotate", key)
    new_token = jwt.encode({"iss": key}, new, "HS256")
    assert seconds_until(connections, new_token, 200) < SEEN_S + _MARGIN_S
    assert seconds_until(connections, old_token, 401) < SEEN_S + _MARGIN_S
    outside.cli("credential", "revoke", key)
    assert seconds_until(connections, new_token, 401) < SEEN_S + _MARGIN_S


def test_a_credential_ends_when_it_expires(outside: Outside, connections: dict[int, Connection]) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=4)
    secret = outside.cli("credential", "create", (name := unique("short")), "--expires", ends.isoformat())
    token = jwt.encode({"iss": name}, secret, "HS256")
    assert seconds_until(connections, token, 200) < SEEN_S + _MARGIN_S
    time.sleep(max(0, (ends - datetime.now(UTC)).total_seconds()))
    assert seconds_until(connections, token, 401) < SEEN_S + _MARGIN_S


Ask = Callable[[Connection], int]


def _app(outside: Outside) -> tuple[Ask, int, Callable[[], object]]:
    token = outside.cli("token", "create", name := unique("app"))
    return lambda one: one.status(token, path="/v1/validate"), 401, lambda: outside.cli("token", "revoke", name)


def _operator(outside: Outside) -> tuple[Ask, int, Callable[[], object]]:
    token = outside.cli("token", "create", name := unique("ops"), "--role", "operator")
    return lambda one: one.status(token, "GET", "/v1/admin/log"), 401, lambda: outside.cli("token", "revoke", name)


def _device(outside: Outside, path: str, method: str) -> tuple[Ask, int, Callable[[], object]]:
    key = outside.cli("model", "create", unique("hub"))
    said = {"sn": unique("SN"), "firmware_version": "1.0.0", "hardware_key": key, "cloud_id": unique("cloud")}
    device = outside.http.post("/v1/devices", json=said).json()
    headers = {"authorization": device["access_key"]}
    report = b'{"telemetries": {"temp": 1}}'

    def end() -> None:
        assert outside.operate("POST", f"/v1/fleet/devices/{device['id']}/revoke").status_code == 200

    return lambda one: one.ask(method, f"/v1/devices/{device['id']}/{path}", headers, report), 403, end


def _licence(outside: Outside) -> tuple[Ask, int, Callable[[], object]]:
    partner = Partner(outside, ("D001", "a" * 40))
    path = urlsplit(partner.url("2026-01-02", "2026-01-01", "manifest")).path  # days that cannot be: 400
    return lambda one: one.ask("GET", path, partner.bearer), 401, lambda: outside.cli("licence", "revoke", partner.name)


def _user(outside: Outside) -> tuple[str, str, Ask]:
    academy, user = outside.cli("academy", "create", "Miami"), outside.cli("user", "create", "Ada")
    outside.cli("role", "grant", user, academy, "read_telemetry")
    headers = {"authorization": f"Token {outside.cli('user', 'token', user)}", "academy": academy}
    return user, academy, lambda one: one.ask("GET", "/v1/assignment/academy/report", headers)


def _user_token(outside: Outside) -> tuple[Ask, int, Callable[[], object]]:
    user, _, ask = _user(outside)
    return ask, 401, lambda: outside.cli("user", "revoke", user)


def _role(outside: Outside) -> tuple[Ask, int, Callable[[], object]]:
    user, academy, ask = _user(outside)
    return ask, 403, lambda: outside.cli("role", "revoke", user, academy, "read_telemetry")


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(_app, id="app's token, api"),
        pytest.param(_operator, id="operator's token"),
        pytest.param(partial(_device, path="telemetry", method="POST"), id="device's key, collector"),
        pytest.param(partial(_device, path="config", method="GET"), id="device's key, api"),
        pytest.param(_licence, id="partner's licence"),
        pytest.param(_user_token, id="user's token"),
        pytest.param(_role, id="user's role"),
    ],
)
def test_what_is_revoked_is_refused_by_every_process_within_a_second(
    made: Callable[[Outside], tuple[Ask, int, Callable[[], object]]],
    outside: Outside,
    connections: dict[int, Connection],
    record_property: Callable[[str, object], None],
) -> None:
    with ThreadPoolExecutor(1) as thread:
        making = thread.submit(made, outside)
        while not making.done():  # the server closes connections that are idle for five seconds
            assert {one.status("nobody") for one in connections.values()} == {401}
            time.sleep(0.2)
    ask, refused, end = making.result()
    until = time.monotonic() + 5
    while not all(ask(one) not in (401, 403, 503) for one in connections.values()):  # every process remembers it
        assert time.monotonic() < until
        time.sleep(0.05)
    good = {ask(one) for one in connections.values()}
    assert not good & {401, 403, 500, 503}, good
    last_good = dict.fromkeys(connections, 0.0)
    done = threading.Event()

    def follow(pid: int) -> None:
        """Ask all the time, so that a process never forgets what it remembers by itself."""
        ended_at = None
        while ended_at is None or time.monotonic() < ended_at + 3:
            began = time.monotonic()
            if ask(connections[pid]) != refused:
                last_good[pid] = began
            if done.is_set() and ended_at is None:
                ended_at = time.monotonic()
            time.sleep(0.01)

    with ThreadPoolExecutor(len(connections)) as threads:
        following = [threads.submit(follow, pid) for pid in connections]
        time.sleep(0.2)
        end()
        ended = time.monotonic()
        done.set()
        for one in following:
            one.result(30)
    longest = max(last_good.values()) - ended
    record_property("revoked_after_s", round(longest, 3))
    assert min(last_good.values()) > 0
    assert longest < SEEN_S
    assert {ask(one) for one in connections.values()} == {refused}


def test_the_scheme_is_read_in_any_letter_case(outside: Outside) -> None:
    for scheme in ("bearer", "BEARER", "Bearer"):
        headers = {"authorization": f"{scheme} {outside.token}"}
        assert outside.http.post("/v1/telemetry", content=b'{"events": []}', headers=headers).status_code == 200


def test_a_credential_is_registered_over_http(outside: Outside) -> None:
    name, key = unique("producer"), unique("device")
    path = f"/api/api-manager/v1/consumer/{name}/credential/register"
    response = outside.operate("POST", path, {"request": {"key": key}})
    assert response.status_code == 200, response.text
    reply = response.json()
    assert reply["id"] == "ekstep.api.am.adminutil.consumer.create"
    assert reply["params"]["status"] == "successful"
    result = reply["result"]
    assert result["key"] == key
    assert jwt.decode(result["token"], result["secret"], ["HS256"])["iss"] == key
    batch_id = outside.send([make_event()], token=result["token"])
    outside.settle([batch_id])
    assert outside.value("SELECT credential FROM batches WHERE batch_id = {id:String}", id=batch_id) == key
    again = outside.operate("POST", path, {"request": {"key": key}}).json()["result"]
    assert again == result
    other = outside.operate(
        "POST", f"/api/api-manager/v1/consumer/{unique('other')}/credential/register", {"request": {"key": key}}
    )
    assert other.status_code == 409
    for wrong in (b"", b"nonsense", b"{}", b'{"request": {"key": 7}}', b'{"request": {"key": "\\ud800"}}'):
        assert outside.operate("POST", path, wrong).status_code == 400


OPERATORS = [
    ("POST", "/api/api-manager/v1/consumer/x/credential/register"),
    ("PUT", "/v1/dimensions/user/u"),
    ("POST", "/v1/dimensions/user"),
    ("GET", "/v1/dimensions/user/u"),
]


@pytest.mark.parametrize(("method", "path"), OPERATORS)
def test_what_is_an_operators_is_no_apps(outside: Outside, method: str, path: str) -> None:
    def status(headers: dict[str, str]) -> int:
        response = outside.http.request(method, path, content=b"{}", headers=headers)
        assert response.json()["message"]
        return response.status_code

    assert status({"authorization": f"Bearer {outside.token}"}) == 403
    assert status({}) == 401
    assert status({"authorization": "Bearer nonsense"}) == 401
    # A role in a token's own claims means nothing.
    name = unique("app")
    secret = outside.cli("credential", "create", name)
    claims = {"iss": name, "role": "operator", "roles": ["operator"]}
    assert status({"authorization": f"Bearer {jwt.encode(claims, secret, 'HS256')}"}) == 403


def test_a_credential_tied_to_channels_sends_for_no_other(outside: Outside) -> None:
    channel = unique("channel")
    secret = outside.cli("credential", "create", (name := unique("tied")), "--channel", channel)
    token = jwt.encode({"iss": name}, secret, "HS256")
    body = make_body([make_event()])
    assert outside.post(body, token=token, x_channel_id=channel).status_code == 200
    response = outside.post(body, token=token, x_channel_id="another")
    assert response.status_code == 401
    assert check_reply(response, "failed")["err"] == "UNAUTHORIZED"


def test_the_end_users_token_leaves_its_subject_alone(outside: Outside) -> None:
    user = jwt.encode({"sub": "f:1:user", "name": "secret name"}, "a key of somebody else, of any length", "HS256")
    batch_id = outside.send([make_event()], x_authenticated_user_token=user)
    outside.settle([batch_id])
    row = outside.row("SELECT * FROM batches WHERE batch_id = {id:String}", id=batch_id)
    assert row["user"] == "f:1:user"
    assert "secret name" not in json.dumps(row, default=str)


def test_secrets_are_shown_once_and_stored_unreadable(outside: Outside) -> None:
    secret = outside.cli("credential", "create", (name := unique("hidden")))
    listed = outside.cli("credential", "list", "--json")
    assert name in {entry["name"] for entry in json.loads(listed)}
    assert secret not in listed
    home = outside.pipeline.home.root
    registry = b"".join(path.read_bytes() for path in home.glob("registry.db*"))
    assert name.encode() in registry
    assert secret.encode() not in registry
    assert run_cli(outside.pipeline, "token", "revoke", "nobody").returncode == 1
