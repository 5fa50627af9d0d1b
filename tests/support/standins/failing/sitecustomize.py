"""Makes a pure step of a worker fail at marked events: this folder stands in PYTHONPATH of a pipeline under test.

A mid or text that holds ``<place>!<way>`` fails there. Places: ``judge``, ``row``, ``split`` of ``validate``; ``join``,
``read``, ``letter`` of ``store``. Ways: ``raise``, ``memory`` (MemoryError), ``segv`` (the process dies), ``hang``
(it never ends).
"""

from __future__ import annotations

import signal
import sys
from typing import Any


def fail(place: str, text: bytes) -> None:
    if f"{place}!raise".encode() in text:
        raise ZeroDivisionError(f"at {place}")
    if f"{place}!memory".encode() in text:
        raise MemoryError
    while f"{place}!hang".encode() in text:
        pass
    if f"{place}!segv".encode() in text:
        signal.raise_signal(signal.SIGSEGV)  # in this thread: another one would let this go on for a moment


def fail_validate() -> None:
    from midstream.events import judge
    from processors.validate import round as round_

    original_judge, original_add = judge.Judge.judge_many, round_.Rows.add
    original_split = round_.split_record

    def judge_many(self: Any, raws: Any) -> Any:
        for raw in raws:
            fail("judge", raw)
        return original_judge(self, raws)

    def add(self: Any, receipt: Any, indexes: Any, events: Any, raws: Any) -> None:
        for raw in raws:
            fail("row", raw)
        original_add(self, receipt, indexes, events, raws)

    def split_record(record: Any, *rest: Any) -> Any:
        fail("split", record.value)
        return original_split(record, *rest)

    judge.Judge.judge_many = judge_many  # type: ignore[method-assign]
    round_.Rows.add = add  # type: ignore[method-assign]
    round_.split_record = split_record


def fail_store() -> None:
    from processors.store import storer, trials, verdicts

    original_join, original_read = storer.denormalise, storer.read_block
    original_letter = verdicts.reject_row

    def denormalise(rows: Any, lookup: Any) -> Any:
        fail("join", "".join(rows.column("mid").to_pylist()).encode())
        return original_join(rows, lookup)

    def read_block(value: bytes) -> Any:
        block, partitions = original_read(value)
        fail("read", "".join(block.column("mid").to_pylist()).encode())
        return block, partitions

    def reject_row(letter: Any, now_ms: int) -> Any:
        fail("letter", letter["raw"])
        return original_letter(letter, now_ms)

    assert trials.verdicts is verdicts
    storer.denormalise = denormalise
    storer.read_block = read_block
    verdicts.reject_row = reject_row


def main() -> None:
    module = next((sys.orig_argv[at + 1] for at, word in enumerate(sys.orig_argv[:-1]) if word == "-m"), "")
    if module == "processors.validate":
        fail_validate()
    elif module == "processors.store":
        fail_store()


main()
