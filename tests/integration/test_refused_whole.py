"""What the collector refuses whole, body or token: the reply, and that nothing of it is stored."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import jwt
import psutil
import pytest

from midstream.registry.credentials import Credentials
from midstream.settings import Settings
from tests.integration.outside import (
    Event,
    Outside,
    accepted,
    check_reply,
    make_body,
    make_event,
    unique,
    web_workers,
)

CHANNEL = unique("refused-whole")
MIB = 1024 * 1024


def good() -> Event:
    return make_event("INTERACT", channel=CHANNEL)


def bomb(size: int) -> bytes:
    """Return a gzip stream of some KiB that inflates to ``size`` bytes of white space, made in no time."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    # After a full flush nothing refers to what was before, so that one piece can stand many times.
    piece = packer.compress(b" " * MIB) + packer.flush(zlib.Z_FULL_FLUSH)
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    return head + piece * (size // MIB) + zlib.compressobj(9, wbits=-zlib.MAX_WBITS).flush() + b"\0" * 8


def lying(position: int) -> Callable[[bytes], bytes]:
    """Return what changes one byte of a gzip stream, counted from its end."""

    def change(body: bytes) -> bytes:
        packed = bytearray(gzip.compress(body))
        packed[position] ^= 0xFF
        return bytes(packed)

    return change


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda body: body.replace(old, new, 1)


REFUSED: list[tuple[str, Callable[[bytes], bytes], int, str]] = [
    ("nothing", lambda _: b"", 400, "INVALID_BATCH"),
    ("not JSON", lambda _: b"hello", 400, "INVALID_BATCH"),
    ("an array", lambda body: b"[" + body + b"]", 400, "INVALID_BATCH"),
    ("a string", lambda _: b'"events"', 400, "INVALID_BATCH"),
    ("no events", replaced(b'"events"', b'"event"'), 400, "INVALID_BATCH"),
    ("events is null", lambda _: b'{"id": "api.telemetry", "events": null}', 400, "INVALID_BATCH"),
    ("events is an object", lambda _: b'{"id": "api.telemetry", "events": {}}', 400, "INVALID_BATCH"),
    ("cut short", lambda body: body[:-1], 400, "INVALID_BATCH"),
    ("cut short in an event", lambda body: body[:-200], 400, "INVALID_BATCH"),
    ("more behind", lambda body: body + b"}", 400, "INVALID_BATCH"),
    ("NaN outside of the events", replaced(b'"params": {', b'"parameters": NaN, "params": {'), 400, "INVALID_BATCH"),
    ("invalid UTF-8 outside of the events", replaced(b"api.telemetry", b"\xff\xfe"), 400, "INVALID_BATCH"),
    ("UTF-16", lambda body: body.decode().encode("utf-16"), 400, "INVALID_BATCH"),
    ("10,000-deep nesting and nothing else", lambda _: b"[" * 10_000, 400, "INVALID_BATCH"),
    ("truncated gzip", lambda body: gzip.compress(body)[:-20], 400, "INVALID_GZIP"),
    ("a gzip header alone", lambda body: gzip.compress(body)[:10], 400, "INVALID_GZIP"),
    ("two bytes of gzip", lambda _: b"\x1f\x8b", 400, "INVALID_GZIP"),
    ("gzip of a wrong checksum", lying(-6), 400, "INVALID_GZIP"),
    ("gzip of a wrong length", lying(-1), 400, "INVALID_GZIP"),
    ("gzip with a wrong byte inside", lying(-60), 400, "INVALID_GZIP"),
    ("gzip of gzip", lambda body: gzip.compress(gzip.compress(body)), 400, "INVALID_BATCH"),
    ("2 MB as sent", lambda body: body + b" " * 2 * MIB, 413, "BODY_TOO_LARGE"),
    ("a byte too many", lambda body: body + b" " * (MIB + 1 - len(body)), 413, "BODY_TOO_LARGE"),
    ("9 MiB inflated", lambda body: gzip.compress(body + b" " * 9 * MIB), 413, "BODY_TOO_LARGE"),
    ("a gzip bomb", lambda _: bomb(900 * MIB), 413, "BODY_TOO_LARGE"),
    ("a gzip bomb in many members", lambda _: gzip.compress(b" " * MIB) * 900, 413, "BODY_TOO_LARGE"),
]


@dataclass(frozen=True)
class Answer:
    """A refused body's event, and the reply."""

    event: Event
    msgid: str
    response: httpx.Response
    seconds: float


@pytest.fixture(scope="module")
def refused(outside: Outside, untouched: None) -> dict[str, Answer]:
    """All bodies that are refused whole, posted one after the other, and a good one after them that is through."""
    answers = {}
    for name, pack, _, _ in REFUSED:
        event, msgid = good(), unique("refused")
        body = pack(make_body([event], msgid=msgid))
        began = time.monotonic()
        response = outside.post(body)
        answers[name] = Answer(event, msgid, response, time.monotonic() - began)
    outside.settle([outside.send([good()])])
    return answers


@pytest.mark.parametrize(("name", "status", "error"), [(case[0], *case[2:]) for case in REFUSED])
def test_what_no_retry_can_mend_is_refused_whole(
    outside: Outside, refused: dict[str, Answer], name: str, status: int, error: str
) -> None:
    answer = refused[name]
    response = answer.response
    assert response.status_code == status, response.text
    params = check_reply(response, "failed")
    assert params["err"] == error
    assert params["errmsg"]
    assert "x-batch-id" not in response.headers
    assert answer.seconds < 5
    assert outside.events([answer.event["mid"]]) == {}
    assert outside.value("SELECT count() FROM batches WHERE msgid = {msgid:String}", msgid=answer.msgid) == 0


def test_a_gzip_bomb_is_not_inflated(outside: Outside, untouched: None) -> None:
    body = bomb(900 * MIB)
    assert len(body) < MIB
    workers = [psutil.Process(pid) for pid in web_workers(outside.pipeline)]
    for _ in range(5):
        assert outside.post(body).status_code == 413
    before = sum(worker.memory_info().rss for worker in workers)
    began = time.monotonic()
    for _ in range(50):
        assert outside.post(body).status_code == 413
    assert time.monotonic() - began < 10
    assert sum(worker.memory_info().rss for worker in workers) - before < 32 * MIB


@pytest.fixture(scope="module")
def secret(outside: Outside, untouched: None) -> tuple[str, str]:
    """A credential's key and secret."""
    credentials = Credentials(Settings.model_validate({"home": outside.pipeline.home.root}))
    try:
        issued = credentials.create(unique("app"))
    finally:
        credentials.close()
    return issued.key, issued.secret


def unsigned(key: str) -> str:
    head, claims = (
        urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "none", "typ": "JWT"}, {"iss": key})
    )
    return f"{head}.{claims}."


BAD_TOKENS: dict[str, Callable[[str, str], str]] = {
    "alg none": lambda key, _: unsigned(key),
    "alg none with a signature": lambda key, secret: (
        unsigned(key) + jwt.encode({"iss": key}, secret, "HS256").rpartition(".")[2]
    ),
    "another key": lambda key, secret: jwt.encode({"iss": key}, secret[::-1], "HS256"),
    "a key of one letter": lambda key, _: jwt.encode({"iss": key}, "k", "HS256"),
    "expired": lambda key, secret: jwt.encode({"iss": key, "exp": int(time.time()) - 60}, secret, "HS256"),
    "not yet": lambda key, secret: jwt.encode({"iss": key, "nbf": int(time.time()) + 3600}, secret, "HS256"),
    "another algorithm": lambda key, secret: jwt.encode({"iss": key}, secret, "HS512"),
    "nobody's": lambda _, secret: jwt.encode({"iss": "nobody"}, secret, "HS256"),
    "no iss": lambda _, secret: jwt.encode({"sub": "x"}, secret, "HS256"),
    "a word": lambda *_: "hello",
    "20 kB": lambda key, secret: jwt.encode({"iss": key, "x": "y" * 20_000}, secret, "HS256"),
}


@pytest.mark.filterwarnings("ignore:The HMAC key is:UserWarning")
def test_a_bad_token_is_401_and_nothing_is_stored(outside: Outside, secret: tuple[str, str]) -> None:
    events = {name: good() for name in BAD_TOKENS}
    for name, make in BAD_TOKENS.items():
        response = outside.post(make_body([events[name]]), token=make(*secret))
        assert response.status_code == 401, name
        assert check_reply(response, "failed")["err"] == "UNAUTHORIZED"
        assert response.json()["message"] == "Unauthorized"
    fine = jwt.encode({"iss": secret[0], "exp": int(time.time()) + 60}, secret[1], "HS256")
    batch_id = accepted(outside.post(make_body([good()]), token=fine))
    outside.settle([batch_id])
    assert outside.events([event["mid"] for event in events.values()]) == {}
    assert outside.value("SELECT credential FROM batches WHERE batch_id = {id:String}", id=batch_id) == secret[0]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic dTpw", "bearer\tx"])
def test_no_token_is_401(outside: Outside, untouched: None, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    response = outside.http.post("/v1/telemetry", content=make_body([good()]), headers=headers)
    assert response.status_code == 401
    assert check_reply(response, "failed")["err"] == "UNAUTHORIZED"
    assert response.json()["message"] == "Unauthorized"
