"""``midstream audit``: proves that everything received is counted once."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from midstream.cli._common import Refused, print_json, print_table, printable, read_settings, say

if TYPE_CHECKING:
    from midstream.audit.findings import Report

_SHOWN = 100
_JSON_LIMIT = 100_000


class _Time(click.ParamType):
    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return epoch milliseconds."""
        from midstream.audit.findings import parse_time

        try:
            return parse_time(str(value))
        except ValueError:
            self.fail(f"{value!r} is no ISO 8601 time or date, such as 2026-01-31 or 2026-01-31T10:30:00Z", param, ctx)


@click.command()
@click.option(
    "--from", "from_ms", type=_Time(), help="Receipt of the first batch, ISO 8601 (UTC); default: the oldest."
)
@click.option("--to", "to_ms", type=_Time(), help="End of receipts (exclusive); default: complete_until.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: the counts and all that is wrong.")
def audit(from_ms: int | None, to_ms: int | None, as_json: bool) -> None:
    """Prove batch by batch that every event received was stored, was a duplicate or was rejected, once.

    It compares what the collectors said with what is in ClickHouse, and asks Kafka about what is missing. It ends at
    complete_until: what was received later may be in flight. Exit 0: proven; 1: something is wrong, or could not be
    checked.
    """
    from midstream.audit.run import NothingCompleteError
    from midstream.clickhouse.client import ClickHouseError

    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise click.UsageError("--from must be before --to")
    try:
        report = _run(from_ms, to_ms)
    except ClickHouseError as error:
        raise Refused(f"ClickHouse cannot be read: {str(error)[:500]}") from None
    except NothingCompleteError as error:
        raise Refused(f"nothing can be proven: {error}") from None
    if as_json:
        print_json(report.as_dict())
    else:
        _show(report)
    if not report.proven:
        sys.exit(1)


def _run(from_ms: int | None, to_ms: int | None) -> Report:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from midstream.audit.run import audit as run_audit
    from midstream.audit.store import AuditStore
    from midstream.clickhouse.client import open_client

    settings = read_settings()
    clickhouse = open_client(settings)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    shown = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    try:
        with shown as progress:
            task = progress.add_task("", total=1.0)

            def told(what: str, share: float) -> None:
                progress.update(task, description=what, completed=share)

            return asyncio.run(run_audit(settings, AuditStore(clickhouse), from_ms, to_ms, _JSON_LIMIT, told))
    finally:
        clickhouse.close()


def _show(report: Report) -> None:
    from midstream.audit.findings import format_time

    click.echo(f"Batches received from {format_time(report.from_ms)} and before {format_time(report.to_ms)}")
    counts = asdict(report.counts)
    print_table([name.replace("_", " ") for name in counts], [[f"{number:,}" for number in counts.values()]])
    for finding in report.findings[:_SHOWN]:
        click.echo(printable(finding.line()))
    more = max(len(report.findings) - _SHOWN, 0) + report.dropped
    if more:
        click.echo(f"and {more:,} more (--json names up to {report.limit:,})")
    for note in report.notes:
        say(f"note: {note}")
    for what in report.unchecked:
        say(f"not checked: {what}")
    say(report.verdict)
