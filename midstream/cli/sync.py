"""``midstream sync``: have ClickHouse agree with where objects come from."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from midstream.cli._common import Refused, open_registry, print_json, printable, read_settings, say

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from midstream.registry.sync.jobs import JobRow, Jobs
    from midstream.settings import Settings

_TYPES = ("user", "organisation", "location", "batch", "user_course", "content", "device")
_LOOK_S = 0.3


@click.command()
@click.argument("type_", metavar="TYPE", type=click.Choice(_TYPES))
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--follow", is_flag=True, help="Show how far it is, until it has ended. Ctrl-C leaves it running.")
@click.option("--json", "as_json", is_flag=True, help="Print the job, an object, instead of its id.")
@click.option("--full", is_flag=True, help="Read the source whole, not what changed since the last sync.")
@click.option(
    "--force",
    is_flag=True,
    help="The source is right, though it has far fewer objects or lower versions than are known.",
)
def sync(type_: str, ids: tuple[str, ...], follow: bool, as_json: bool, full: bool, force: bool) -> None:
    """Begin a sync of the objects of TYPE, all or those of these IDs, and print the id of its job.

    TYPE is user, organisation, location, batch, user_course, content or device.

    The job is run by the pipeline; while that is down it waits. With --follow the exit code is 1 unless it ends well.
    `midstream jobs` shows and cancels jobs.
    """
    from midstream.registry.sync.jobs import Jobs, Order

    settings = read_settings()
    wanted = _checked(ids, settings)
    with open_registry() as engine:
        _refuse_erased(settings, engine, type_, wanted)
        jobs = Jobs(engine)
        job, _ = jobs.create(Order("sync", type_, wanted or None, {"full": full, "force": force}))
        if not as_json:
            click.echo(job.id)
        if follow:
            job = followed(jobs, job)
    end(job, as_json=as_json, is_followed=follow)


def end(job: JobRow, *, as_json: bool, is_followed: bool) -> None:
    """Tell of a job, and end the command with exit code 1 if it was followed and did not end well."""
    if as_json:
        from serve.sync.shown import shown

        print_json(shown(job))
    if not is_followed:
        return
    if job.status != "done":
        raise Refused(f"job {job.id} {printable(told(job))}")
    say(told(job))


def told(job: JobRow) -> str:
    """Return in words how a job has ended."""
    if job.status == "failed":
        return f"failed: {job.error}"
    if job.status == "cancelled":
        return "was cancelled"
    changed = ", ".join(f"{rows} {table}" for table, rows in sorted(job.changed.items()) if rows)
    refused = (job.report or {}).get("source", {}).get("refused", 0)
    return f"{job.objects} objects; changed: {changed or 'nothing'}" + (f"; {refused} rows refused" if refused else "")


def followed(jobs: Jobs, job: JobRow) -> JobRow:
    """Show how far a job is until it has ended; return it as it is then."""
    with _shown() as show:
        while not job.is_ended:
            show(job)
            time.sleep(_LOOK_S)
            job = jobs.get(job.id) or job
    return job


class _shown:  # noqa: N801  used as a function is
    """A bar on a terminal; elsewhere a line for each step."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        rate = TextColumn("{task.fields[per_s]:.0f}/s")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeElapsedColumn())
        self._is_terminal = sys.stderr.isatty()
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not self._is_terminal, transient=True)
        self._task = self._bar.add_task("waiting", total=None, per_s=0.0)
        self._said = ""

    def __enter__(self) -> Callable[[JobRow], None]:
        self._bar.start()
        return self._show

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def _show(self, job: JobRow) -> None:
        words = printable(_words(job))
        total = job.total or None
        self._bar.update(self._task, description=words, completed=job.done, total=total, per_s=job.per_s)
        if not self._is_terminal and words != self._said:
            say(words)
        self._said = words


def _words(job: JobRow) -> str:
    if job.status == "running":
        return job.phase or "begins"
    return "waits" if job.error is None else f"waits to be tried again: {job.error}"


def _checked(ids: tuple[str, ...], settings: Settings) -> tuple[str, ...]:
    """Return each id once; what can be no id is wrong usage."""
    from midstream.dimensions import DimensionError, check_id

    for id_ in ids:
        try:
            check_id(id_)
        except DimensionError as error:
            raise click.UsageError(f"{printable(id_[:100])!r}: {error}") from None
    if len(ids) > settings.sync_max_ids:
        raise click.UsageError(f"{len(ids)} ids; at most {settings.sync_max_ids} are taken at once")
    return tuple(dict.fromkeys(ids))


def _refuse_erased(settings: Settings, engine: Engine, type_: str, ids: tuple[str, ...]) -> None:
    from midstream.registry.sync.erasures import Erasures

    if erased := Erasures(settings, engine).among(type_, ids):
        raise Refused(f"ERASED: {len(erased)} of these objects were erased, and are not taken again")
