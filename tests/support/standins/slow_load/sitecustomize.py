"""Makes `store` take long to read what is stored, as it does beside very many events: this folder stands in PYTHONPATH
of a pipeline under test."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

LOAD_S = 9.0


def slow() -> None:
    from processors.store.dedupe.stored import StoredMids

    hashes = StoredMids.hashes

    def slowly(self: Any, partitions: Sequence[int], of: int) -> Iterator[Any]:
        time.sleep(LOAD_S)
        yield from hashes(self, partitions, of)

    StoredMids.hashes = slowly  # type: ignore[method-assign]


if sys.argv[0] == "-m" and "processors.store" in sys.orig_argv:
    slow()
