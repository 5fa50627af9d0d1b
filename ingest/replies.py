"""The collector's replies: their one form, and the one list of error codes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import orjson

Header = tuple[bytes, bytes]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON: tuple[Header, ...] = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


@dataclass(frozen=True, slots=True)
class Refusal:
    """One kind of error reply."""

    status: HTTPStatus
    message: str
    retry_after_s: int = 0


class ErrorCode(Enum):
    """``params.err`` of a reply; ``docs/apps.md`` says what a sender should do at each."""

    INVALID_GZIP = Refusal(HTTPStatus.BAD_REQUEST, "The body is a gzip stream that is cut short or corrupt")
    INVALID_BATCH = Refusal(HTTPStatus.BAD_REQUEST, "The body is no JSON object with an array `events`")
    UNAUTHORIZED = Refusal(HTTPStatus.UNAUTHORIZED, "Unauthorized")
    NOT_FOUND = Refusal(HTTPStatus.NOT_FOUND, "There is nothing at this path")
    METHOD_NOT_ALLOWED = Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "This path takes another method")
    BODY_TIMEOUT = Refusal(HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time")
    BODY_TOO_LARGE = Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large: send fewer events at once")
    UNSUPPORTED_ENCODING = Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body's encoding cannot be read: use gzip")
    UNSUPPORTED_CONTENT_TYPE = Refusal(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body's content type cannot be read: use application/json in UTF-8"
    )
    RATE_LIMITED = Refusal(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests with this credential", 1)
    OVERLOADED = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The collector is full", 1)
    KAFKA_UNAVAILABLE = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The batch cannot be made durable now", 5)
    SPOOL_FULL = Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE, "The batch cannot be kept now: Kafka is away, the spool full", 10
    )
    OUTCOME_UNKNOWN = Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE, "The batch may or may not be durable: send it again, unchanged", 5
    )
    REGISTRY_UNAVAILABLE = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "Credentials cannot be checked now", 5)
    INTERNAL_ERROR = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "The collector failed", 5)


class RefusedError(Exception):
    """Ends a request with an error reply."""

    def __init__(
        self,
        code: ErrorCode,
        message: str = "",
        *,
        retry_after_s: int = 0,
        batch_id: str = "",
        allow: str = "POST, OPTIONS",
    ) -> None:
        super().__init__(code.name)
        self.code = code
        self.message = message or code.value.message
        self.retry_after_s = retry_after_s or code.value.retry_after_s
        self.batch_id = batch_id
        """Names the receipt when there is one: the batch was handed to Kafka."""
        self.allow = allow


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, ready to be sent."""

    status: int
    headers: list[Header]
    body: bytes


def accepted(batch_id: str, resmsgid: str, msgid: str) -> Reply:
    """Make the reply to a batch that is durable."""
    headers = [*_JSON, (b"x-batch-id", batch_id.encode())]
    return Reply(200, headers, _body(resmsgid, msgid, None, None, "SUCCESS"))


def refused(error: RefusedError, resmsgid: str, msgid: str) -> Reply:
    """Make an error reply."""
    code = error.code
    status = code.value.status
    headers = [*_JSON]
    if error.retry_after_s:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if error.batch_id:
        headers.append((b"x-batch-id", error.batch_id.encode()))
    if code is ErrorCode.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    elif code is ErrorCode.METHOD_NOT_ALLOWED:
        headers.append((b"allow", error.allow.encode()))
    elif code is ErrorCode.BODY_TIMEOUT:
        headers.append((b"connection", b"close"))
    body = _body(
        resmsgid,
        msgid,
        code.name,
        error.message,
        "CLIENT_ERROR" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "SERVER_ERROR",
        **({"message": "Unauthorized"} if code is ErrorCode.UNAUTHORIZED else {}),
    )
    return Reply(status, headers, body)


def _body(resmsgid: str, msgid: str, err: str | None, errmsg: str | None, response_code: str, **more: str) -> bytes:
    seconds, ms = divmod(time.time_ns() // 1_000_000, 1000)
    return orjson.dumps(
        {
            "id": "api.telemetry",
            "ver": "1.0",
            "ts": f"{_second(seconds)}.{ms:03}Z",
            "ets": seconds * 1000 + ms,
            "params": {
                "resmsgid": resmsgid,
                "msgid": msgid,
                "status": "successful" if err is None else "failed",
                "err": err,
                "errmsg": errmsg,
            },
            "responseCode": response_code,
            **more,
        }
    )


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


async def send_reply(send: Send, reply: Reply, headers: Sequence[Header] = ()) -> None:
    """Send a reply, with further headers."""
    length = (b"content-length", b"%d" % len(reply.body))
    await send({"type": "http.response.start", "status": reply.status, "headers": [*reply.headers, length, *headers]})
    await send({"type": "http.response.body", "body": reply.body})
