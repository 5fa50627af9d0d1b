"""``midstream log``: what administrators did."""

from __future__ import annotations

from datetime import datetime

import click

from midstream.cli._common import open_registry, print_json, print_table, printable
from midstream.cli._moment import PastMoment


@click.command()
@click.option("--since", type=PastMoment(), help="From when: ISO 8601 (UTC), or a span back such as 90d, 12h, 30m.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True, help="Acts at the most.")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def log(since: datetime | None, limit: int, as_json: bool) -> None:
    """Show what administrators did, newest first: who, when, from where, what, on which object.

    Acts of commands and of operators over HTTP alike. They are kept for 400 days.
    """
    from midstream.registry.admin_log import read_acts

    with open_registry() as engine:
        acts = read_acts(engine, limit=limit, since=since)
    if as_json:
        print_json([act._asdict() | {"at": act.at.isoformat()} for act in acts])
        return
    print_table(
        ["AT", "WHO", "FROM", "ACTION", "OBJECT", "OUTCOME", "DETAILS"],
        [
            [
                act.at.isoformat(" ", "seconds").removesuffix("+00:00"),
                printable(act.actor),
                printable(act.address),
                act.action,
                printable(act.object),
                act.outcome,
                " ".join(f"{name}={printable(str(value))}" for name, value in act.details.items() if value is not None),
            ]
            for act in acts
        ],
    )
