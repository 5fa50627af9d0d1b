"""``midstream check``: whether a deployment is as it must be, and what to change."""

from __future__ import annotations

import click

from midstream.cli._common import print_json, printable, read_settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects: check, ok, message, level, change.")
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Check settings, registry, Kafka, ClickHouse and this machine: a line each, and what to change.

    It writes nothing, and takes some seconds. Exit code 1 when something does not work (FAIL), 0 with warnings.
    """
    from midstream.check.result import Level
    from midstream.check.run import run_checks

    results = run_checks(read_settings())
    if as_json:
        print_json(
            [
                {
                    "check": one.check,
                    "ok": one.level is not Level.FAIL,
                    "message": one.message,
                    "level": one.level.value.lower(),
                    "change": one.change,
                }
                for one in results
            ]
        )
    else:
        width = max(len(one.check) for one in results)
        for one in results:
            click.echo(f"{one.level:4}  {one.check:{width}}  {printable(one.message)}")
            if one.change:
                click.echo(f"{'':{width + 6}}  change: {printable(one.change)}")
    if any(one.level is Level.FAIL for one in results):
        ctx.exit(1)
