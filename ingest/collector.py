"""The collector: a request comes in, is proven, bounded and read, and leaves as one record of ``telemetry.raw``.

Delivery contract: 200 means that every byte is durable, in Kafka or in the spool. Any other reply means that the client
has to keep its batch; only after ``OUTCOME_UNKNOWN`` may it become durable all the same, and ``mid`` absorbs the second
sending. Nothing is dropped: a batch that is refused was never taken.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from uuid_utils import uuid7

from ingest.backlog import Backlog, Refusals
from ingest.body import ClientGoneError, Hold, Receive, read_body
from ingest.cors import Cors
from ingest.devices import DeviceReports, handles
from ingest.envelopes import EnvelopeReader
from ingest.head import Headers, authorization, check_readable, clean, content_length, end_user, fact
from ingest.keep import Keeper, NotKeptError, NotKnownError
from ingest.limits import BytesInFlight, RequestsInFlight
from ingest.publish import KafkaPublisher, Publisher
from ingest.replies import ErrorCode, RefusedError, Reply, Send, accepted, refused, send_reply
from ingest.tally import Tally
from midstream.deadlines import Deadlines
from midstream.logs import get_logger
from midstream.metrics import COLLECTOR_ACCEPTING, REQUEST_SECONDS
from midstream.rate_limiter import RateLimiter
from midstream.receipt import Receipt
from midstream.registry.auth import Authenticator, Principal
from midstream.registry.errors import RegistryUnavailable, Unauthorized
from midstream.request_ids import HEADER, begin_request
from midstream.request_log import RequestLog
from midstream.settings import Settings
from midstream.topics import MAX_MESSAGE_BYTES

PATHS = frozenset({"/api/data/v1/telemetry", "/v1/telemetry"})

_CLIENT_GONE = 499  # nobody was there for a reply; counted under nginx's number for it

_TELL_INTERVAL_S = 1.0

_log = get_logger(__name__)


@dataclass(slots=True)
class _Ids:
    """What a reply names, whatever it is: as the headers say, and of ``msgid`` as the body says once it is read."""

    made: str
    """The request's id where it was made here: the batch has the same. "" where the client gave one."""
    resmsgid: str
    msgid: str


class Collector:
    """The ASGI callable of :data:`PATHS` and of what devices report, alone or mounted in another application. Belongs
    to one event loop."""

    def __init__(self, settings: Settings, publisher: Publisher | None = None) -> None:
        publisher = publisher if publisher is not None else KafkaPublisher(settings)
        self._keeper = Keeper(settings, publisher)
        self._authenticator = Authenticator(settings)
        self._reader = EnvelopeReader(settings)
        self._in_flight = BytesInFlight(settings.max_in_flight_bytes)
        self._requests = RequestsInFlight(settings.max_in_flight_requests)
        self._backlog = Backlog(settings.max_in_flight_requests)
        self._refusals = Refusals()
        self._tally = Tally(self._requests, self._in_flight, self._backlog, self._refusals)
        self._rates = RateLimiter(settings.rate_limit_per_s)
        self._cors = Cors(settings.cors_origins)
        self._max_body_bytes = min(settings.max_body_bytes, MAX_MESSAGE_BYTES)
        self._max_batch_events = settings.max_batch_events
        self._body_deadlines = Deadlines(settings.body_timeout_ms / 1000)
        self._drain_timeout_s = settings.drain_timeout_ms / 1000
        self._devices = DeviceReports(
            settings, publisher, self._requests, self._in_flight, self._backlog, self._refusals, self._tally
        )
        self._request_log = RequestLog()
        self._open = False
        self._registry_away = False
        self._telling: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Begin; Kafka may come later: until then batches go into the spool, if Kafka has been there before."""
        await self._keeper.start()
        await self._devices.start()
        self._open = True
        self._telling = asyncio.create_task(self._tell_accepting(), name="accepting")

    async def shutdown(self) -> None:
        """Take nothing more, and bring to Kafka what can be, for at most the drain timeout."""
        self._open = False
        if self._telling is not None:
            self._telling.cancel()
        COLLECTOR_ACCEPTING.set(0)
        await self._devices.stop()
        await self._keeper.stop(self._drain_timeout_s)
        self._reader.close()
        self._authenticator.close()
        self._tally.tell()

    def accepting(self) -> bool:
        """Whether a batch posted now would be durable, as far as is known."""
        return self._open and self._keeper.ready and not self._in_flight.full

    async def _tell_accepting(self) -> None:
        while True:
            COLLECTOR_ACCEPTING.set(self.accepting())
            await asyncio.sleep(_TELL_INTERVAL_S)

    def handles(self, path: str) -> bool:
        """Whether ``path`` is the collector's."""
        return path in PATHS or handles(path)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["path"] not in PATHS:
            await self._devices(scope, receive, send)
            return
        began = time.perf_counter()
        headers: Headers = dict(scope["headers"])
        method = scope["method"]
        request_id = begin_request(headers.get(HEADER))
        if method == "OPTIONS":
            reply = Reply(204, [(b"allow", b"POST, OPTIONS")], b"")
            cross_origin = self._cors.headers(headers, preflight=True)
        else:
            cross_origin = self._cors.headers(headers)
            ids = _Ids(
                request_id.text if request_id.is_ours else "",
                fact(headers, HEADER) or request_id.text,
                fact(headers, b"x-msgid"),
            )
            try:
                if method != "POST":
                    raise RefusedError(ErrorCode.METHOD_NOT_ALLOWED)
                if self._backlog.full or not self._requests.enter():
                    raise RefusedError(ErrorCode.OVERLOADED)
                try:
                    reply = await self._take(headers, receive, ids)
                finally:
                    self._requests.leave()
            except ClientGoneError:
                self._tally.reply(_CLIENT_GONE)
                request_id.is_over = True
                return
            except RefusedError as error:
                if error.code is ErrorCode.OVERLOADED:
                    await self._refusals.wait()
                reply = refused(error, ids.resmsgid, ids.msgid)
            except Exception:  # noqa: BLE001  a request's top: a fault of ours is one 500, told in the log
                _log.exception("request.failed")
                reply = refused(RefusedError(ErrorCode.INTERNAL_ERROR), ids.resmsgid, ids.msgid)
        cross_origin.append(request_id.header)
        await send_reply(send, reply, cross_origin)
        self._tally.reply(reply.status)
        seconds = time.perf_counter() - began
        REQUEST_SECONDS.observe(seconds)
        self._request_log.end(request_id, reply.status, seconds, method, scope["path"])

    async def _take(self, headers: Headers, receive: Receive, ids: _Ids) -> Reply:
        announced = content_length(headers)
        if announced is not None and announced > self._max_body_bytes:
            raise RefusedError(ErrorCode.BODY_TOO_LARGE)
        principal = await self._authenticate(headers)
        wait_s = self._rates.retry_after_s(principal.key)
        if wait_s:
            raise RefusedError(ErrorCode.RATE_LIMITED, retry_after_s=wait_s)
        check_readable(headers)
        obstacle = self._keeper.obstacle if self._open else ErrorCode.KAFKA_UNAVAILABLE
        if obstacle is not None:
            raise RefusedError(obstacle)
        hold = Hold(self._in_flight)
        self._tally.begin()
        try:
            body = await read_body(receive, hold, announced, self._max_body_bytes, self._body_deadlines)
            batch = await self._reader.read(body)
            ids.msgid = clean(batch.msgid) or ids.msgid
            events = len(batch.events)
            if events > self._max_batch_events:
                raise RefusedError(ErrorCode.BODY_TOO_LARGE)
            did = clean(batch.did) or fact(headers, b"x-device-id")
            batch_id = ids.made or str(uuid7())
            make_receipt = partial(
                Receipt,
                batch_id=batch_id,
                events=events,
                bytes=len(body),
                credential=principal.key,
                did=did,
                channel=fact(headers, b"x-channel-id"),
                app=fact(headers, b"x-app-id"),
                msgid=ids.msgid,
                sent_at_ms=batch.sent_at_ms,
                user=end_user(headers),
            )
            del batch
            if self._backlog.full:  # others came before it while its body was read
                raise RefusedError(ErrorCode.OVERLOADED)
            entered = self._backlog.enter()
            try:
                await self._keeper.keep(
                    body,
                    did.encode(),
                    lambda received_at_ms, collector, sequence: make_receipt(
                        received_at_ms=received_at_ms, collector=collector, sequence=sequence
                    ),
                    hold,
                )
            except NotKeptError as error:
                raise RefusedError(error.code) from None
            except NotKnownError:
                raise RefusedError(ErrorCode.OUTCOME_UNKNOWN, batch_id=batch_id) from None
            finally:
                self._backlog.leave(entered)
        finally:
            hold.release()
        self._tally.receive(events, len(body))
        return accepted(batch_id, ids.resmsgid, ids.msgid)

    async def _authenticate(self, headers: Headers) -> Principal:
        try:
            principal = await self._authenticator.authenticate(authorization(headers))
        except Unauthorized as error:
            _log.debug("request.unauthorized", reason=error.reason)
            raise RefusedError(ErrorCode.UNAUTHORIZED) from None
        except RegistryUnavailable as error:
            if not self._registry_away:
                _log.error("registry.unavailable", error=str(error))
            self._registry_away = True
            raise RefusedError(ErrorCode.REGISTRY_UNAVAILABLE) from None
        self._registry_away = False
        if principal.channels and not principal.may_send_for(fact(headers, b"x-channel-id")):
            raise RefusedError(ErrorCode.UNAUTHORIZED)
        return principal
