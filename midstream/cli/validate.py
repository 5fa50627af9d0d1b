"""``midstream validate``: what would become of each event of a file, offline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import click

from midstream.cli._common import Refused, print_json, printable, read_settings, say

if TYPE_CHECKING:
    from midstream.settings import Settings


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Print an object: valid, invalid, events (one entry an event).")
@click.pass_context
def validate(ctx: click.Context, file: BinaryIO, as_json: bool) -> None:
    """Tell what would become of each event of FILE (- for standard input), a batch as it is sent, gzipped or not.

    A line an event: its index, mid, and "valid" or code, pointer and message. Nothing is sent, nothing is stored.
    Exit 1: an event, or the whole batch, would be refused.
    """
    entries = _judge(file, read_settings())
    invalid = sum(not entry["valid"] for entry in entries)
    if as_json:
        print_json({"valid": len(entries) - invalid, "invalid": invalid, "events": entries})
    else:
        for entry in entries:
            click.echo(printable(_line(entry)))
        say(f"{len(entries) - invalid} valid, {invalid} refused")
    if invalid:
        ctx.exit(1)


def _judge(file: BinaryIO, settings: Settings) -> list[dict[str, Any]]:
    from midstream.envelope import EnvelopeError
    from midstream.events.judge import Judge
    from midstream.events.report import judge_body
    from midstream.events.schemas import SchemaError, load_schemas
    from midstream.inflate import InflateError, inflate

    try:
        body = file.read(settings.max_body_bytes + 1)
    except OSError as error:
        raise Refused(f"{file.name} cannot be read: {error.strerror}") from None
    if len(body) > settings.max_body_bytes:
        raise Refused(f"the batch is larger than {settings.max_body_bytes} bytes as sent: it would be refused with 413")
    try:
        judge = Judge(load_schemas(settings.schemas), settings.max_event_bytes, settings.max_event_depth)
        return judge_body(judge, inflate(body, settings.max_inflated_bytes))
    except SchemaError as error:
        raise Refused(f"the schemas cannot be used: {error}") from None
    except (InflateError, EnvelopeError) as error:
        raise Refused(f"the whole batch would be refused: {error}") from None


def _line(entry: dict[str, Any]) -> str:
    start = f"{entry['index']}  {entry['mid'] or '-'}  "
    if not entry["valid"]:
        return f"{start}{entry['code']}  {entry['pointer'] or '(event)'}  {entry['message']}"
    first = entry["duplicate_of"]
    return f"{start}valid" + ("" if first is None else f", a duplicate of event {first}")
