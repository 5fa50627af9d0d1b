"""Reading ahead: the next answer is asked for and received while the one before it is being compressed."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

_PUT_S = 0.5


class _End:
    """The end of what is read, or what it failed of."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Ahead(Generic[T]):
    def __init__(self, source: Iterable[T], depth: int) -> None:
        self._source = source
        self._queue: queue.Queue[T | _End] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def stop(self) -> None:
        self._stopped.set()

    def _read(self) -> None:
        error: BaseException | None = None
        source = iter(self._source)
        try:
            for item in source:
                if not self._put(item):
                    break
        except Exception as caught:  # noqa: BLE001  raised again where the items are taken
            error = caught
        finally:
            if isinstance(source, Generator):
                source.close()
        self._put(_End(error))

    def _put(self, item: T | _End) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_PUT_S)
            except queue.Full:
                continue
            return True
        return False


@contextmanager
def ahead(sources: Iterable[Iterable[T]], depth: int) -> Iterator[Iterator[T]]:
    """Yield what the ``sources`` yield, one after the other; it ends with the block.

    A thread reads each up to ``depth`` items ahead; the next one's begins with it, as ClickHouse sorts before it sends.
    """
    readers: deque[_Ahead[T]] = deque()
    waiting = iter(sources)

    def begin() -> None:
        for source in islice(waiting, 1):
            readers.append(_Ahead(source, depth))

    def items() -> Iterator[T]:
        begin()
        while readers:
            begin()
            yield from readers[0]
            readers.popleft()

    try:
        yield items()
    finally:
        for reader in readers:
            reader.stop()
