"""``midstream trace``: what became of an event."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from midstream.cli._common import Refused, print_table, printable, read_settings, say

if TYPE_CHECKING:
    from midstream.settings import Settings
    from midstream.trace.arrivals import Arrival, Trace

_WORDS = {
    "stored": "stored",
    "rejected": "rejected",
    "in_flight": "in flight: accepted, not yet stored",
    "unknown": "unknown: no event of this mid has been seen",
}


@click.command()
@click.argument("mid")
@click.option("--json", "as_json", is_flag=True, help="Print the trace as `GET /v1/trace/{mid}` gives it to operators.")
@click.pass_context
def trace(ctx: click.Context, mid: str, as_json: bool) -> None:
    """Tell what became of the event MID: each arrival, the verdict with its reason, where it is stored.

    Asks ClickHouse and Kafka of the settings, and the spool of this machine. Exit 1: no event of this mid has been
    seen.
    """
    from midstream.clickhouse.client import ClickHouseError
    from midstream.events.schemas import SchemaError
    from midstream.trace.arrivals import Verdict
    from midstream.trace.reply import in_ascii, to_json

    try:
        found = asyncio.run(_trace(read_settings(), mid))
    except ClickHouseError as error:
        raise Refused(f"ClickHouse does not answer: {printable(str(error))[:300]}") from None
    except SchemaError as error:
        raise Refused(str(error)) from None
    if as_json:
        click.echo(in_ascii(to_json(found).decode()))
    else:
        _show(found)
    if not found.complete:
        say("not all that is on its way could be searched: there may be more")
    if found.verdict is Verdict.UNKNOWN:
        ctx.exit(1)


async def _trace(settings: Settings, mid: str) -> Trace:
    from midstream.clickhouse.client import open_client
    from midstream.events.judge import Judge
    from midstream.events.schemas import load_schemas
    from midstream.kafka.schemas import look_up_in
    from midstream.trace.stored import LOOK_UP_THREADS
    from midstream.trace.tracer import Tracer

    look_up_in(settings)
    judge = Judge(load_schemas(settings.schemas), settings.max_event_bytes, settings.max_event_depth)
    clickhouse = open_client(settings, max_threads=LOOK_UP_THREADS)
    try:
        tracer = Tracer(settings, judge, clickhouse.rows)
        try:
            (found,) = await tracer.trace([mid], with_event=True)
        finally:
            await tracer.close()
    finally:
        clickhouse.close()
    return found


def _show(found: Trace) -> None:
    from midstream.trace.reply import iso

    click.echo(f"{printable(found.mid)}: {_WORDS[found.verdict.value]}")
    if found.stored is not None:
        click.echo(f"  in {found.stored.table}, written {iso(found.stored.stored_at_ms)}")
        if found.stored.visible_at_ms is not None:
            click.echo(f"  visible {iso(found.stored.visible_at_ms)}")
    elif found.verdict.value == "stored":
        click.echo("  retention has deleted it since")
    if found.reject is not None:
        place = f" at {found.reject.pointer}" if found.reject.pointer else ""
        click.echo(printable(f"  {found.reject.code}{place}: {found.reject.message}"))
    if found.arrivals:
        click.echo()
        print_table(
            ["RECEIVED", "OUTCOME", "DEVICE", "CREDENTIAL", "SOURCE", "KAFKA", "BATCH"],
            [[printable(cell) for cell in _row(arrival, iso(arrival.received_at_ms))] for arrival in found.arrivals],
        )
    if found.more_arrivals:
        click.echo("and more arrivals")
    if found.event is not None:
        click.echo(f"\n{printable(found.event)}")


def _row(arrival: Arrival, received_at: str) -> list[str]:
    outcome = arrival.outcome.value + (" (differs)" if arrival.differs else "")
    outcome += f" ({arrival.reject.code})" if arrival.reject is not None else ""
    batch = f"{arrival.batch_id}[{arrival.event_index}]"
    facts = arrival.facts
    if facts is None:
        return [received_at, outcome, "?", "?", "?", "?", batch]
    kafka = "-" if facts.offset is None else f"{facts.topic}/{facts.partition}/{facts.offset}"
    return [received_at, outcome, facts.did or "-", facts.credential or "-", facts.source, kafka, batch]
