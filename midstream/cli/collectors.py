"""``midstream collectors``: the collectors that were, and taking one out whose spool will not come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from midstream.cli._common import Refused, on_record, print_json, print_table, printable, read_settings, say

if TYPE_CHECKING:
    from midstream.settings import Settings

_TIMEOUT_S = 15.0
_ALIVE_MS = 30_000

T = TypeVar("T")


@click.group()
def collectors() -> None:
    """Collectors and their spools, as they last spoke."""


@collectors.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects, times as epoch milliseconds.")
def list_collectors(as_json: bool) -> None:
    """List collectors: whether open, when last heard of, before which moment all of theirs is in Kafka, their spool."""
    from midstream.kafka.collectors import read_marks

    settings = read_settings()
    marks = sorted(
        _ask(settings, read_marks(settings, _TIMEOUT_S)).values(), key=lambda mark: (not mark.open, mark.at_ms)
    )
    if as_json:
        print_json([asdict(mark) for mark in marks])
        return
    print_table(
        ["ID", "STATE", "HEARD", "COMPLETE BEFORE", "SPOOLED"],
        [
            [
                printable(mark.id),
                "open" if mark.open else "closed",
                _time(mark.at_ms),
                _time(mark.low_ms),
                f"{mark.spooled_batches} batches, {mark.spooled_bytes} bytes" if mark.spooled_batches else "",
            ]
            for mark in marks
        ],
    )


@collectors.command()
@click.argument("id_", metavar="ID")
@click.option("--force", is_flag=True, help="Also one that was heard of in the last 30 seconds.")
def retire(id_: str, force: bool) -> None:
    """Stop waiting for the collector ID, whose machine or disk is lost.

    `complete_until` goes on without it. What it had spooled is lost with its disk; should the disk come back, a
    collector that is started on it delivers that all the same, and it is counted.
    """
    from midstream.kafka.collectors import read_marks
    from midstream.kafka.collectors import retire as close

    settings = read_settings()
    mark = _ask(settings, read_marks(settings, _TIMEOUT_S)).get(id_)
    if mark is None:
        raise Refused(f"no collector {id_} is known: see `midstream collectors list`")
    if not mark.open:
        say(f"{id_} is closed already")
        return
    age_ms = time.time_ns() // 1_000_000 - mark.at_ms
    if age_ms < _ALIVE_MS and not force:
        raise Refused(f"{id_} spoke {max(age_ms, 0) // 1000} s ago: it is alive. Stop it, and it closes by itself.")
    with on_record("collector.retire", f"collector/{id_}", force=force):
        _ask(settings, close(settings, mark, _TIMEOUT_S))
    say(f"{id_} is retired")


def _time(epoch_ms: int) -> str:
    return (
        datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")
        if epoch_ms
        else "-"
    )


def _ask(settings: Settings, question: Coroutine[Any, Any, T]) -> T:
    from aiokafka.errors import KafkaError

    try:
        return asyncio.run(question)
    except (KafkaError, OSError, TimeoutError) as error:
        raise Refused(f"Kafka at {settings.kafka_servers} does not answer: {type(error).__name__}") from None
