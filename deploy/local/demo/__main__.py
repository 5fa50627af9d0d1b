"""`python -m deploy.local.demo`: what `make demo` runs. See :mod:`deploy.local.demo`."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from deploy.local.demo import report
from deploy.local.demo.day import make_day
from deploy.local.demo.fleet import MIN_STUDENTS
from deploy.local.demo.run import run_demo
from deploy.local.demo.target import DemoError, find_target
from midstream.clickhouse.client import ClickHouseError
from midstream.settings import SettingsError, load_settings


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", default=1, show_default=True, help="The same seed: the same fleet, doings and counts.")
@click.option(
    "--students",
    default=40,
    show_default=True,
    type=click.IntRange(MIN_STUDENTS, 1000),
    help="Size of the fleet; each student is about 200 events.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def main(seed: int, students: int, as_json: bool) -> None:
    """Send a realistic day of a small fleet to the pipeline that `make run` started, and show what became of it.

    Every run adds a day: ids of events carry the run. Exit 0: everything sent is accounted for; 1: it is not, or the
    demo could not run.
    """
    talk = Console(stderr=True)
    try:
        target = find_target(load_settings())
        day = make_day(seed, time.time_ns() // 1_000_000, students)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=talk, transient=True) as progress:
            tasks = {name: progress.add_task(name, total=None, visible=False) for name in ("sending", "in ClickHouse")}

            def told(name: str, done: int, total: int) -> None:
                progress.update(tasks[name], completed=done, total=total, visible=True)

            summary = asyncio.run(run_demo(target, day, told))
    except (DemoError, SettingsError, ClickHouseError) as error:
        for line in str(error).splitlines():
            print(f"midstream: {line}", file=sys.stderr)
        sys.exit(1)
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        report.show(Console(), summary)
    sys.exit(0 if summary["adds_up"] else 1)


if __name__ == "__main__":
    main()
