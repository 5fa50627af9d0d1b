"""One request of an HTTP source: tried again where that may help, within limits of time and size, to its own host only.

What is tried again, with a wait that grows: a connection that fails, 429 (after ``Retry-After``), 502, 503 and 504.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

import httpx
import stamina

from midstream.lines import GZIP_MARK, GzipError, Inflater
from midstream.sources.config import HttpConfig
from midstream.sources.errors import SourceCode, SourceError, config_error
from midstream.sources.reading import Deadline
from midstream.sources.secrets import Hider

T = TypeVar("T")

_AGAIN = frozenset({429, 502, 503, 504})
_MAX_WAIT_S = 30.0
_MAX_RETRY_AFTER_S = 600.0
_MAX_CONNECT_S = 10.0


class Page(NamedTuple):
    """An answer; ``next_link`` is what its header ``Link`` names as the next one, ``body`` empty while it comes."""

    url: httpx.URL
    content_type: str
    next_link: str | None
    body: bytes


class _AgainError(Exception):
    """A request failed in a way that may pass."""

    def __init__(self, code: SourceCode, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.wait_s = wait_s


class Fetcher:
    """Makes the requests of one read, one at a time, in one event loop."""

    def __init__(self, config: HttpConfig, hide: Hider, deadline: Deadline) -> None:
        self._config = config
        self._hide = hide
        self._deadline = deadline
        self._timeout_s = config.request_timeout_ms / 1000
        self._read_bytes = 0
        self.url = httpx.URL(config.url.get_secret_value())
        headers = {name: value.get_secret_value() for name, value in config.headers.items()}
        if config.bearer_token is not None:
            headers["Authorization"] = f"Bearer {config.bearer_token.get_secret_value()}"
        try:
            self._client = httpx.AsyncClient(
                headers={"Accept-Encoding": "gzip", **headers},
                timeout=httpx.Timeout(self._timeout_s, connect=min(self._timeout_s, _MAX_CONNECT_S)),
                follow_redirects=False,
            )
        except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
            # Of certificates or proxies that the environment names.
            raise config_error(f"the HTTP client cannot be made: {hide(str(error))}") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def page(self, url: httpx.URL, params: Sequence[tuple[str, str]], place: str) -> Page:
        """Return an answer whose whole body is taken into memory.

        Raises:
            SourceError: there is none, or a limit is passed.
        """

        async def once() -> Page:
            async with AsyncExitStack() as stack:
                response = await self._begin(stack, url, params, place)
                body = bytearray()
                async for piece in self._inflated(response, place):
                    body += piece
                    if len(body) > self._config.max_page_bytes:
                        raise self._too_large(place, "max_page_bytes", self._config.max_page_bytes)
                return _page(response, bytes(body))

        return await self._tried(once, place)

    async def stream(
        self, stack: AsyncExitStack, url: httpx.URL, params: Sequence[tuple[str, str]], place: str
    ) -> tuple[Page, AsyncIterator[bytes]]:
        """Return an answer whose body is still to come, in pieces: it lives as long as ``stack``.

        Only its beginning is tried again. Each piece has the time of a request.
        """
        found = await self._tried(lambda: self._begin(stack, url, params, place), place)
        if "content-length" not in found.headers and "transfer-encoding" not in found.headers:
            raise SourceError(
                SourceCode.SOURCE_CUT,
                f"{place}: the answer says neither how long it is nor where it ends; half of it would look whole",
            )
        return _page(found, b""), self._inflated(found, place)

    async def next_piece(self, pieces: AsyncIterator[bytes], place: str) -> bytes:
        """Return the next piece of a stream, b"" at its end."""

        async def once() -> bytes:
            return await anext(pieces, b"")

        self._deadline.check()
        try:
            return await self._in_time(once, place)
        except _AgainError as error:
            raise SourceError(error.code, str(error)) from None

    async def _tried(self, once: Callable[[], Coroutine[Any, Any, T]], place: str) -> T:
        config = self._config
        try:
            async with asyncio.timeout(self._deadline.left_s):
                async for attempt in stamina.retry_context(
                    on=_wait_before_again,
                    attempts=config.tries,
                    timeout=None,  # all tries together have what is left of the read's time
                    wait_initial=config.retry_wait_ms / 1000,
                    wait_jitter=config.retry_wait_ms / 1000,
                    wait_max=_MAX_WAIT_S,
                ):
                    with attempt:
                        return await self._in_time(once, place)
        except _AgainError as error:
            raise SourceError(error.code, f"{error}, {config.tries} times") from None
        except TimeoutError:
            raise self._deadline.error() from None
        raise AssertionError("no attempt ended")

    async def _in_time(self, once: Callable[[], Coroutine[Any, Any, T]], place: str) -> T:
        """Return what a request gives within its time; turn what httpx raises into errors of ours."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await once()
        except httpx.ConnectTimeout:
            raise _AgainError(SourceCode.SOURCE_UNAVAILABLE, f"{place}: {self._host} takes no connection") from None
        except (TimeoutError, httpx.TimeoutException):
            message = f"{place}: {self._host} took longer than request_timeout_ms, which is"
            raise SourceError(SourceCode.SOURCE_TIMEOUT, f"{message} {self._config.request_timeout_ms}") from None
        except httpx.ConnectError as error:
            message = f"{place}: {self._host} cannot be reached: {self._hide(str(error))}"
            raise _AgainError(SourceCode.SOURCE_UNAVAILABLE, message) from None
        except UnicodeError:  # of a name that no name server can be asked for
            raise SourceError(SourceCode.SOURCE_UNAVAILABLE, f"{place}: {self._host} is no name of a host") from None
        except httpx.TransportError as error:
            message = f"{place}: no whole answer of {self._host}: {self._hide(str(error) or repr(error))}"
            raise _AgainError(SourceCode.SOURCE_CUT, message) from None

    async def _begin(
        self, stack: AsyncExitStack, url: httpx.URL, params: Sequence[tuple[str, str]], place: str
    ) -> httpx.Response:
        """Send a request; return the answer when its head says that rows come."""
        if params:
            url = url.copy_merge_params(httpx.QueryParams(list(params)))
        response = await stack.enter_async_context(self._client.stream("GET", url))
        status = response.status_code
        if status == httpx.codes.OK:
            return response
        await response.aclose()
        if 300 <= status < 400:
            where = _host(response.headers.get("location", ""), url)
            message = f"{place}: {self._host} answers {status}, a redirect to {where}: none is followed"
            raise SourceError(SourceCode.SOURCE_REDIRECTED, message)
        message = f"{place}: {self._host} answers {status}"
        if status not in _AGAIN:
            code = SourceCode.SOURCE_UNAVAILABLE if status >= 500 else SourceCode.SOURCE_REFUSED
            raise SourceError(code, message)
        wait_s = _retry_after_s(response.headers.get("retry-after", ""))
        if wait_s is not None and wait_s > min(_MAX_RETRY_AFTER_S, self._deadline.left_s):
            raise SourceError(SourceCode.SOURCE_UNAVAILABLE, f"{message}, and to come back in {wait_s:.0f} s")
        raise _AgainError(SourceCode.SOURCE_UNAVAILABLE, message, wait_s)

    async def _inflated(self, response: httpx.Response, place: str) -> AsyncIterator[bytes]:
        """Yield the body in pieces, inflated when it is gzip: its first bytes say so."""
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", ""):
            raise SourceError(SourceCode.SOURCE_UNREADABLE, f"{place}: the body is encoded as {encoding[:40]!r}")
        inflater: Inflater | None = None
        head: bytes | None = b""
        try:
            async for data in response.aiter_raw():
                if head is not None:  # the beginning, until it shows what it is
                    head += data
                    if len(head) < len(GZIP_MARK):
                        continue
                    inflater = Inflater() if head.startswith(GZIP_MARK) else None
                    data, head = head, None
                for piece in [data] if inflater is None else inflater.feed(data):
                    self._count(len(piece), place)
                    if piece:  # a reader takes none for the end
                        yield piece
            if head:
                yield head
            if inflater is not None:
                inflater.finish()
        except GzipError as error:
            raise SourceError(SourceCode.SOURCE_CUT, f"{place}: {error}") from None

    def _count(self, size_bytes: int, place: str) -> None:
        self._read_bytes += size_bytes
        if self._read_bytes > self._config.max_bytes:
            raise self._too_large(place, "max_bytes", self._config.max_bytes)

    @staticmethod
    def _too_large(place: str, name: str, limit: int) -> SourceError:
        return SourceError(SourceCode.SOURCE_TOO_LARGE, f"{place}: larger than {name}, which is {limit}")

    @property
    def _host(self) -> str:
        return _host("", self.url)


def _page(response: httpx.Response, body: bytes) -> Page:
    link = response.links.get("next", {}).get("url")
    return Page(response.url, response.headers.get("content-type", ""), link, body)


def _wait_before_again(error: Exception) -> bool | float:
    """Say to stamina whether to try again, and after how many seconds where that was asked for."""
    if not isinstance(error, _AgainError):
        return False
    return True if error.wait_s is None else error.wait_s


def _host(location: str, base: httpx.URL) -> str:
    """Return the scheme, host and port of an address: the rest of it may hold secrets."""
    try:
        url = base.join(location)
    except (httpx.InvalidURL, ValueError):
        return "an address that is none"
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')[:200]}"


def _retry_after_s(text: str) -> float | None:
    """Return how long to wait by a header ``Retry-After``: seconds, or a date."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:12])
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
