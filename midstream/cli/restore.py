"""``midstream restore``: a backup into an empty deployment."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from midstream.cli._common import Refused, act_as_system_user, print_json, print_table, read_settings, say
from midstream.cli._progress import shown_steps


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--only", type=click.Choice(["clickhouse", "registry"]), help="Restore this part alone; the other is as it is."
)
@click.option("--replace", is_flag=True, help="Put the backup in the place of data that is there, which is lost.")
@click.option(
    "--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The key file, if FOLDER has none."
)
@click.option("--verify", "verify_only", is_flag=True, help="Check the backup's files and versions, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: what was restored, and what is not as it was.")
def restore(folder: Path, only: str | None, replace: bool, key: Path | None, verify_only: bool, as_json: bool) -> None:
    """Restore the backup in FOLDER into an empty deployment whose workers are stopped.

    The backup is checked before anything is changed. Kafka's readers are set back to where they were, so that the
    pipeline, once it is started, reads what came after; `midstream audit` proves the result. Users who were erased
    since stay erased. A restore that was broken off is begun again by the same command.
    """
    from deploy.local.alone import stores_alone
    from deploy.local.errors import LocalError
    from midstream.backup.errors import BackupError
    from midstream.backup.restore import PARTS, Wanted, restore_backup, verify
    from midstream.logs import configure_logs

    settings = read_settings()
    act_as_system_user()
    configure_logs(settings, "restore")  # to stderr: stdout is for what was asked for
    try:
        if verify_only:
            with shown_steps() as told:
                manifest = verify(folder, told)
            if as_json:
                print_json({"id": manifest.id, "made_at_ms": manifest.made_at_ms, "with_key": manifest.has_key})
            say(f"{manifest.id} of {_moment(manifest.made_at_ms)} is whole: {len(manifest.files)} files")
            return
        with stores_alone(settings, say, beside=False), shown_steps() as told:
            done = restore_backup(settings, Wanted(folder, (only,) if only else PARTS, replace, key), told)
    except (BackupError, LocalError) as error:
        raise Refused(f"{error.code}: {error}" if isinstance(error, BackupError) else str(error)) from None
    if as_json:
        print_json(done.as_dict())
    else:
        print_table(["TABLE", "ROWS"], [[name, f"{rows:,}"] for name, rows in done.rows.items() if rows])
    say(
        f"restored {done.id} of {_moment(done.made_at_ms)}: {done.readers.records:,} records of Kafka are read again, "
        f"{done.writes:,} learners' writes and {done.erased:,} erasures since were taken from Kafka"
    )
    for note in done.notes:
        say(f"note: {note}")
    say("start the pipeline; then `midstream audit` proves the counts")


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")
