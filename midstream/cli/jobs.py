"""``midstream jobs``: syncs, deletions and erasures, shown and cancelled."""

from __future__ import annotations

import click

from midstream.cli._common import Refused, open_registry, print_json, print_table, printable

_STATUSES = ("queued", "running", "done", "failed", "cancelled")


@click.group()
def jobs() -> None:
    """Syncs, deletions and erasures: which there are, how far they are."""


@jobs.command("list")
@click.option("--status", type=click.Choice(_STATUSES), help="Only jobs of this status.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def list_jobs(status: str | None, limit: int, as_json: bool) -> None:
    """List jobs, the newest first."""
    from midstream.registry.sync.jobs import Jobs
    from serve.sync.shown import shown

    with open_registry() as engine:
        found = Jobs(engine).page(limit=limit, status=status)  # type: ignore[arg-type]  # Click has checked it
    if as_json:
        print_json([shown(job) for job in found])
        return
    titles = ["ID", "KIND", "TYPE", "STATUS", "OBJECTS", "CREATED", "STEP"]
    rows = [
        [job.id, job.kind, job.type, job.status, str(job.objects), f"{job.created_at:%Y-%m-%dT%H:%M:%SZ}", job.phase]
        for job in found
    ]
    print_table(titles, [[printable(cell) for cell in row] for row in rows])


@jobs.command()
@click.argument("id_", metavar="ID")
@click.option("--follow", is_flag=True, help="Show how far it is, until it has ended. Exit code 1 unless it ends well.")
def show(id_: str, follow: bool) -> None:
    """Print a job, a JSON object."""
    from midstream.cli.sync import end, followed
    from midstream.registry.sync.jobs import Jobs

    with open_registry() as engine:
        known = Jobs(engine)
        job = known.get(id_)
        if job is None:
            raise Refused("there is no such job")
        if follow:
            job = followed(known, job)
    end(job, as_json=True, is_followed=follow)


@jobs.command()
@click.argument("id_", metavar="ID")
def cancel(id_: str) -> None:
    """Cancel a job: one that waits ends at once, one that runs at its next safe point. Print its status then."""
    from midstream.registry.sync.jobs import Jobs

    with open_registry() as engine:
        click.echo(Jobs(engine).cancel(id_).status)
