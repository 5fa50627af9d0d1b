"""A source that is an HTTP endpoint: GET, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator, Sequence
from contextlib import AsyncExitStack, closing, suppress

import httpx
import xxhash

from midstream.dimensions import DimensionType, max_line_bytes, now_ms
from midstream.lines import LineSplitter
from midstream.sources.config import Cursor, HttpConfig, LinkHeader, NextUrl, PageNumber
from midstream.sources.errors import SourceCode, SourceError
from midstream.sources.fetch import Fetcher, Page
from midstream.sources.lenient import Unfit, without_unfit
from midstream.sources.pages import is_json, join_own, next_cursor, read_rows, unreadable
from midstream.sources.reading import Block, Deadline, Item, Reading, Refused, askable, only
from midstream.sources.rows import RowMaker
from midstream.sources.secrets import Hider
from midstream.sources.watermark import next_watermark, since_text, version_after

_ROWS_AT_ONCE = 1_000
_MAX_IDS_BYTES = 4_000  # of a query: many servers take addresses of 8 KiB, and each byte may be encoded as three

Parameters = list[tuple[str, str]]
Address = tuple[httpx.URL, Parameters]


class HttpSource:
    """Reads an endpoint. By ids where it has a parameter for them, else everything is read and filtered."""

    def __init__(self, type_: DimensionType, config: HttpConfig, hide: Hider, max_attributes_bytes: int) -> None:
        self.type = type_
        self._config = config
        self._hide = hide
        self._max_bytes = max_attributes_bytes
        self._timed = bool(config.updated_at_field)
        self.incremental = bool(config.since_parameter)

    def read(self, ids: Sequence[str] | None = None, since: str | None = None) -> Reading:
        """See :class:`midstream.sources.reading.Source`."""
        after = version_after(since, self._timed) if self.incremental and ids is None else None
        maker = RowMaker(self.type, self._config.fields, self._max_bytes)
        began_ms = now_ms()

        def watermark() -> str | None:
            return next_watermark(after, maker.highest, self._timed, began_ms) if self.incremental else None

        return Reading(self._blocks(maker, ids, after), after is None, watermark)

    def _blocks(self, maker: RowMaker, ids: Sequence[str] | None, after: int | None) -> Iterator[Block]:
        asked = None if ids is None else frozenset(ids)
        deadline = Deadline(self._config.read_timeout_ms)
        with asyncio.Runner() as runner:
            reader = _Reader(self._config, Fetcher(self._config, self._hide, deadline), runner, maker, self._max_bytes)
            try:
                for parameters in self._queries(ids, after):
                    with closing(reader.pages(parameters)) as pages:
                        for block in pages:
                            deadline.check()
                            yield only(block, asked)
            finally:
                reader.close()

    def _queries(self, ids: Sequence[str] | None, after: int | None) -> Iterator[Parameters]:
        """Yield the parameters of each list of pages to read."""
        config = self._config
        separator = config.ids_separator
        # An id that holds the separator would be taken for two.
        if ids is not None and config.ids_parameter and not (separator and any(separator in one for one in ids)):
            for some in chunks(askable(ids), config.ids_per_request, _MAX_IDS_BYTES):
                yield [(config.ids_parameter, value) for value in ([separator.join(some)] if separator else some)]
        elif after is not None:
            value = max(0, after - config.overlap_ms) if self._timed else after
            yield [(config.since_parameter, since_text(value, self._timed, config.updated_at_unit))]
        else:
            yield []


class _Reader:
    """Reads lists of pages, one after the other."""

    def __init__(
        self, config: HttpConfig, fetcher: Fetcher, runner: asyncio.Runner, maker: RowMaker, max_attributes_bytes: int
    ) -> None:
        self._config = config
        self._fetcher = fetcher
        self._runner = runner
        self._maker = maker
        self._max_line_bytes = max_line_bytes(max_attributes_bytes)
        self._pages = 0
        self._follow: Address | None = None
        self._content = b""

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._fetcher.close())

    def pages(self, parameters: Parameters) -> Generator[Block]:
        """Yield the rows of the pages that a query has.

        Raises:
            SourceError: a page cannot be read, or they never end.
        """
        config = self._config
        seen: set[int] = set()  # at most one a page, and these are bounded
        numbered = config.paging if isinstance(config.paging, PageNumber) else None
        number = numbered.first if numbered else 0
        own = self._fetcher.url
        here: Address | None = (own, [*parameters, *([(numbered.parameter, str(number))] if numbered else [])])
        content = b""
        read = self._page if config.format == "json" else self._lines
        while here is not None:
            self._pages += 1
            place = f"page {self._pages}"
            if self._pages > config.max_pages:
                raise SourceError(SourceCode.SOURCE_TOO_LARGE, f"more than max_pages, which is {config.max_pages}")
            address = xxhash.xxh3_128_intdigest(repr((str(here[0]), here[1])).encode())
            if address in seen:
                raise SourceError(SourceCode.SOURCE_LOOPS, f"{place}: its address or cursor came before")
            seen.add(address)
            rows = 0
            with closing(read(here, parameters, place)) as blocks:
                for block in blocks:
                    rows += len(block)
                    yield block
            if rows and self._content == content:
                raise SourceError(SourceCode.SOURCE_LOOPS, f"{place}: the same as the page before")
            content = self._content
            if numbered:
                number += 1
                here = (own, [*parameters, (numbered.parameter, str(number))]) if rows else None
            else:
                here = self._follow

    def _page(self, address: Address, parameters: Parameters, place: str) -> Generator[Block]:
        page = self._runner.run(self._fetcher.page(*address, place))
        body, pointer = page.body, self._config.rows
        unfit: dict[int, Unfit] = {}
        if not is_json(body):
            with suppress(ValueError, RecursionError):  # then it is refused as it is
                body, unfit = without_unfit(body, pointer, self._config.id_field)
        raws = read_rows(body, pointer, page.content_type, place)
        self._follow = self._next(page._replace(body=body), parameters, place)
        self._content = xxhash.xxh3_128_digest(page.body)
        for start in range(0, len(raws), _ROWS_AT_ONCE):
            block: list[Item] = []
            for index, raw in enumerate(raws[start : start + _ROWS_AT_ONCE], start):
                at = f"{place}, row {index + 1}"
                if index in unfit:
                    block.append(Refused(at, "INVALID_JSON", unfit[index].reason, unfit[index].id))
                else:
                    block.append(self._maker.from_json(bytes(raw), at))
            yield block

    def _next(self, page: Page, parameters: Parameters, place: str) -> Address | None:
        """Return where the page after this one is, as far as it says so."""
        paging = self._config.paging
        if isinstance(paging, Cursor):
            cursor = next_cursor(page.body, paging.pointer, place)
            return None if cursor is None else (self._fetcher.url, [*parameters, (paging.parameter, cursor)])
        link = None
        if isinstance(paging, NextUrl):
            link = next_cursor(page.body, paging.pointer, place)
        elif isinstance(paging, LinkHeader):
            link = page.next_link
        return None if link is None else (join_own(page.url, link, place), [])

    def _lines(self, address: Address, parameters: Parameters, place: str) -> Generator[Block]:
        """Read a body of JSON lines as it comes."""
        splitter = LineSplitter(self._max_line_bytes)
        digest = xxhash.xxh3_128()
        stack = AsyncExitStack()
        number = 0
        try:
            page, pieces = self._runner.run(self._fetcher.stream(stack, *address, place))
            self._follow = self._next(page, parameters, place)
            while True:
                piece = self._runner.run(self._fetcher.next_piece(pieces, place))
                digest.update(piece)
                lines = splitter.feed(piece) if piece else splitter.finish()
                if not piece and lines and lines[0] is not None and lines[0].strip() and not is_json(lines[0]):
                    raise SourceError(
                        SourceCode.SOURCE_CUT, f"{place}, line {number + 1}: the body ends in half a line"
                    )
                block: list[Item] = []
                for line in lines:
                    number += 1
                    at = f"{place}, line {number}"
                    if line is None:
                        block.append(Refused(at, "TOO_LARGE", "the line is longer than a row may be", None))
                    elif line.strip():
                        if number == 1 and line.lstrip()[:1] != b"{":
                            raise unreadable(line, "the first line", page.content_type, place)
                        block.append(self._maker.from_json(line, at))
                yield block
                if not piece:
                    self._content = digest.digest()
                    return
        finally:
            self._runner.run(stack.aclose())


def chunks(ids: Sequence[str], most: int, max_bytes: int) -> Iterator[list[str]]:
    """Yield ids in order, some at a time: at most so many, and so many bytes, but never none."""
    some: list[str] = []
    size_bytes = 0
    for one in ids:
        one_bytes = len(one.encode())
        if some and (len(some) == most or size_bytes + one_bytes > max_bytes):
            yield some
            some, size_bytes = [], 0
        some.append(one)
        size_bytes += one_bytes
    if some:
        yield some
