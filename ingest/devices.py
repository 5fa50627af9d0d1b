"""Reports of devices: each is proven, bounded and read, and leaves as one record of ``device.telemetry``.

Delivery contract: 200 means that the report is durable in Kafka. Any other reply means that the device (or the gateway)
has to send it again; after a 503 it may become durable all the same, and its state absorbs the second sending. Reports
are not spooled: while Kafka is away they are answered 503, and devices keep reporting what is so then.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from uuid_utils import uuid7

from ingest.backlog import Backlog, Refusals
from ingest.body import ClientGoneError, Hold, Receive, read_body
from ingest.head import Headers, authorization, content_length
from ingest.limits import BytesInFlight, RequestsInFlight
from ingest.publish import NotAcknowledgedError, NotPublishedError, Publisher
from ingest.replies import ErrorCode, Header, RefusedError, Reply, Send, send_reply
from ingest.tally import Tally
from midstream.deadlines import Deadlines
from midstream.devices.record import encode_report
from midstream.devices.report import Report, ReportError, read_object, read_report
from midstream.kafka.producer import RecordTooLarge
from midstream.logs import get_logger
from midstream.metrics import DEVICE_REPORTS, REQUEST_SECONDS
from midstream.rate_limiter import RateLimiter
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.fleet.cache import FlagsCache, Known
from midstream.registry.fleet.errors import FleetError
from midstream.request_ids import HEADER, begin_request
from midstream.request_log import RequestLog
from midstream.settings import Settings
from midstream.topics import DEVICE, MAX_MESSAGE_BYTES

MAX_DEVICES = 100
"""Of one request for many."""

_MANY = "/v1/devices/telemetry"
_ONE = re.compile(r"/v1/devices/([^/]+)/telemetry")
_TOKEN = "access_token"  # noqa: S105  the name of a member

_TOO_MANY = "Too many reports"

_CLIENT_GONE = 499
_JSON: tuple[Header, ...] = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))

_log = get_logger(__name__)


class _Refused(Exception):  # noqa: N818  ends a request, as RefusedError does
    """Ends a request with an error in the form of the device API."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def handles(path: str) -> bool:
    """Whether reports are posted to ``path``."""
    return path == _MANY or _ONE.fullmatch(path) is not None


class DeviceReports:
    """The ASGI callable of what devices report; it shares the bounds of the collector's other requests. Belongs to
    one event loop."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        requests: RequestsInFlight,
        in_flight: BytesInFlight,
        backlog: Backlog,
        refusals: Refusals,
        tally: Tally,
    ) -> None:
        self._publisher = publisher
        self._requests = requests
        self._in_flight = in_flight
        self._backlog = backlog
        self._refusals = refusals
        self._tally = tally
        self._max_body_bytes = min(settings.max_body_bytes, MAX_MESSAGE_BYTES)
        self._body_deadlines = Deadlines(settings.body_timeout_ms / 1000)
        self._cache = FlagsCache(settings)
        self._accepted = DEVICE_REPORTS.labels("accepted")
        self._refused = DEVICE_REPORTS.labels("refused")
        self._request_log = RequestLog()
        self._rates = RateLimiter(settings.rate_limit_per_s)
        self._open = False
        self._registry_away = False

    async def start(self) -> None:
        """Begin; registry and Kafka may come later."""
        await self._cache.start()
        self._open = True

    async def stop(self) -> None:
        """Take nothing more."""
        self._open = False
        await self._cache.close()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        began = time.perf_counter()
        request_id = begin_request(next((value for name, value in scope["headers"] if name == HEADER), None))
        try:
            if scope["method"] != "POST":
                raise RefusedError(ErrorCode.METHOD_NOT_ALLOWED, allow="POST")
            if self._backlog.full or not self._requests.enter():
                raise RefusedError(ErrorCode.OVERLOADED)
            try:
                reply = await self._take(scope, receive)
            finally:
                self._requests.leave()
        except ClientGoneError:
            self._tally.reply(_CLIENT_GONE)
            request_id.is_over = True
            return
        except (FleetError, _Refused) as error:
            reply = _error(error.status, str(error))
        except RegistryUnavailable as error:
            if not self._registry_away:
                _log.error("registry.unavailable", error=str(error))
            self._registry_away = True
            reply = _refusal(RefusedError(ErrorCode.REGISTRY_UNAVAILABLE, "The device cannot be checked now"))
        except RefusedError as error:
            if error.code is ErrorCode.OVERLOADED:
                await self._refusals.wait()
            reply = _refusal(error)
        except Exception:  # noqa: BLE001  a request's top: a fault of ours is one 500, told in the log
            _log.exception("request.failed")
            reply = _refusal(RefusedError(ErrorCode.INTERNAL_ERROR))
        await send_reply(send, reply, [request_id.header])
        self._tally.reply(reply.status)
        seconds = time.perf_counter() - began
        REQUEST_SECONDS.observe(seconds)
        self._request_log.end(request_id, reply.status, seconds, scope["method"], scope["path"])

    async def _take(self, scope: dict[str, Any], receive: Receive) -> Reply:
        headers: Headers = dict(scope["headers"])
        announced = content_length(headers)
        if announced is not None and announced > self._max_body_bytes:
            raise RefusedError(ErrorCode.BODY_TOO_LARGE, "The body is too large")
        one = _ONE.fullmatch(scope["path"])
        known = None
        if one is not None:  # a key is proven before a body is read
            known = await self._cache.authenticate(one[1], authorization(headers) or "")
            self._registry_away = False
            wait_s = self._rates.retry_after_s(one[1])
            if wait_s:
                raise RefusedError(ErrorCode.RATE_LIMITED, _TOO_MANY, retry_after_s=wait_s)
        if not self._open or not self._publisher.ready:
            raise RefusedError(ErrorCode.KAFKA_UNAVAILABLE, "Reports cannot be made durable now")
        hold = Hold(self._in_flight)
        self._tally.begin()
        try:
            body = await read_body(receive, hold, announced, self._max_body_bytes, self._body_deadlines)
            if one is not None and known is not None:
                return await self._take_one(one[1], known, body, hold)
            return await self._take_many(body, hold)
        finally:
            hold.release()

    async def _take_one(self, device_id: str, known: Known, body: bytes, hold: Hold) -> Reply:
        try:
            report = read_report(device_id, read_object(body), _now_us(), str(uuid7()))
        except ReportError as error:
            self._refused.inc()
            raise _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        await self._publish([report], hold)
        return Reply(HTTPStatus.OK, [*_JSON], known.reply)

    async def _take_many(self, body: bytes, hold: Hold) -> Reply:
        try:
            entries = read_object(body)
        except ReportError as error:
            raise _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        if len(entries) > MAX_DEVICES:
            raise _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, f"Only up to {MAX_DEVICES} devices at once")
        replies: dict[str, Any] = {}
        reports: list[Report] = []
        now_us = _now_us()
        for device_id, entry in entries.items():
            try:
                known, report = await self._read_entry(device_id, entry, now_us)
            except (FleetError, ReportError) as error:
                replies[device_id] = {"error": str(error)}
            else:
                reports.append(report)
                replies[device_id] = orjson.Fragment(known.reply)
        self._registry_away = False
        self._refused.inc(len(entries) - len(reports))
        await self._publish(reports, hold)
        return Reply(HTTPStatus.OK, [*_JSON], orjson.dumps(replies))

    async def _read_entry(self, device_id: str, entry: object, now_us: int) -> tuple[Known, Report]:
        if not isinstance(entry, Mapping):
            raise ReportError("The entry must be an object")
        key = entry.get(_TOKEN)
        known = await self._cache.authenticate(device_id, key if isinstance(key, str) else "")
        if self._rates.retry_after_s(device_id):
            raise ReportError(_TOO_MANY)
        # Who brought a report does not count for which report it is.
        sent = {name: value for name, value in entry.items() if name != _TOKEN}
        return known, read_report(device_id, sent, now_us, str(uuid7()))

    async def _publish(self, reports: list[Report], hold: Hold) -> None:
        """Return when the reports are durable."""
        if self._backlog.full:  # others came before them while their body was read
            raise RefusedError(ErrorCode.OVERLOADED)
        entered = self._backlog.enter()
        try:
            if len(reports) == 1:
                await self._send(reports[0], hold)
            else:
                ends = await asyncio.gather(*(self._send(one, hold) for one in reports), return_exceptions=True)
                for end in ends:
                    if end is not None:
                        raise end
        except RecordTooLarge:
            raise RefusedError(ErrorCode.BODY_TOO_LARGE, "The report is too large") from None
        except NotPublishedError:
            raise RefusedError(ErrorCode.KAFKA_UNAVAILABLE, "Reports cannot be made durable now") from None
        except NotAcknowledgedError:
            raise RefusedError(
                ErrorCode.OUTCOME_UNKNOWN, "The report may or may not be durable: send it again, unchanged"
            ) from None
        finally:
            self._backlog.leave(entered)
        self._accepted.inc(len(reports))

    async def _send(self, report: Report, hold: Hold) -> None:
        hold.share()  # the producer has the record, however long this waits for it
        await self._publisher.send(DEVICE.name, report.device_id.encode(), encode_report(report), hold.release)


def _now_us() -> int:
    return time.time_ns() // 1_000


def _refusal(error: RefusedError) -> Reply:
    reply = _error(error.code.value.status, error.message)
    if error.retry_after_s:
        reply.headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if error.code is ErrorCode.METHOD_NOT_ALLOWED:
        reply.headers.append((b"allow", error.allow.encode()))
    elif error.code is ErrorCode.BODY_TIMEOUT:
        reply.headers.append((b"connection", b"close"))
    return reply


def _error(status: int, message: str) -> Reply:
    return Reply(status, [*_JSON], orjson.dumps({"error": message}))
