"""``midstream backup``: ClickHouse, the registry, and where Kafka's readers were."""

from __future__ import annotations

from pathlib import Path

import click

from midstream.cli._common import Refused, act_as_system_user, print_json, read_settings, say
from midstream.cli._progress import shown_steps


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--clickhouse-to",
    "destination",
    default="",
    help="Where a ClickHouse server copies its tables to, such as \"Disk('backups', '{id}')\" or \"S3(NAME, '{id}')\" "
    "(NAME: a named collection with the address and its credentials). Default: FOLDER, which the local engine can.",
)
@click.option(
    "--base",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of an earlier backup, beside FOLDER: only what ClickHouse has changed since is copied.",
)
@click.option(
    "--with-key",
    is_flag=True,
    help="Copy the key file too: FOLDER is then as secret as all credentials. Without it, keep registry.key elsewhere.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(0, 86_400),
    default=300,
    show_default=True,
    help="Seconds to wait for a job that works on stored events; new ones wait until the backup is made.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an object instead of the backup's id.")
def backup(folder: Path, destination: str, base: Path | None, with_key: bool, wait_s: int, as_json: bool) -> None:
    """Back up a deployment, which may be at work, into FOLDER (new or empty; only its owner may read it).

    Prints the backup's id. Kafka itself, the collectors' spools and built days of datasets are not part of it:
    `midstream restore` reads from Kafka what came after the backup.
    """
    from deploy.local.alone import stores_alone
    from deploy.local.errors import LocalError
    from midstream.backup.errors import BackupError
    from midstream.backup.make import Wanted, make_backup
    from midstream.backup.tables import check_destination
    from midstream.logs import configure_logs
    from midstream.registry.keyfile import key_path

    settings = read_settings()
    act_as_system_user()
    configure_logs(settings, "backup")  # to stderr: stdout is for what was asked for
    try:
        where = check_destination(destination) if destination else ""
    except BackupError as error:
        raise click.UsageError(f"--clickhouse-to: {error}") from None
    try:
        with stores_alone(settings, say, beside=True), shown_steps() as told:
            made = make_backup(settings, Wanted(folder, where, base, with_key, float(wait_s)), told)
    except (BackupError, LocalError) as error:
        raise Refused(f"{error.code}: {error}" if isinstance(error, BackupError) else str(error)) from None
    if as_json:
        print_json(
            {
                "id": made.id,
                "folder": str(folder),
                "made_at_ms": made.made_at_ms,
                "base": made.clickhouse.base,
                "clickhouse": made.clickhouse.destination,
                "with_key": made.has_key,
                "bytes": sum(one.bytes for one in made.files.values()),
                "rows": made.clickhouse.rows,
                "registry_rows": made.registry.rows,
            }
        )
    else:
        click.echo(made.id)
    if made.has_key:
        say(f"{folder} holds the key file: whoever reads it can sign as any credential")
    else:
        say(f"without the key file: keep a copy of {key_path(settings)}, or no credential can be restored")
