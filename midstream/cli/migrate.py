"""``midstream migrate``: registry and ClickHouse to the newest schema."""

from __future__ import annotations

import click

from midstream.cli._common import Refused, read_settings, say


@click.command()
def migrate() -> None:
    """Create or upgrade the tables of the registry and of ClickHouse. Safe to repeat, and by several at once."""
    from midstream.clickhouse.client import ClickHouseError
    from midstream.clickhouse.migrate import migrate as migrate_clickhouse
    from midstream.registry.errors import RegistryError
    from midstream.registry.migrate import migrate as migrate_registry
    from midstream.settings import SettingsError

    settings = read_settings()
    try:
        migrate_registry(settings)
    except RegistryError as error:
        raise Refused(f"registry: {error}") from None
    say("registry: up to date")
    try:
        done = migrate_clickhouse(settings)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except ClickHouseError as error:
        raise Refused("ClickHouse cannot be reached" if error.code is None else f"ClickHouse: {error}") from None
    say("".join(f"ClickHouse: {name}\n" for name in done) + "ClickHouse: up to date")
