"""``midstream migrate``: registry and ClickHouse to the newest schema, and Kafka's topics."""

from __future__ import annotations

import asyncio

import click

from midstream.cli._common import Refused, act_as_system_user, on_record, read_settings, say


@click.command()
def migrate() -> None:
    """Create or upgrade the tables of the registry and of ClickHouse, and create the topics of Kafka that are missing.

    Safe to repeat, and by several at once; the first step of an upgrade. The number of partitions of a topic that is
    there stays.
    """
    from midstream.clickhouse.client import ClickHouseError
    from midstream.clickhouse.migrate import migrate as migrate_clickhouse
    from midstream.kafka.admin import TopicsError, ensure_topics
    from midstream.registry.errors import RegistryError
    from midstream.registry.migrate import migrate as migrate_registry
    from midstream.settings import SettingsError

    settings = read_settings()
    act_as_system_user()
    try:
        migrate_registry(settings)
    except RegistryError as error:
        raise Refused(f"registry: {error}") from None
    say("registry: up to date")
    try:
        with on_record("clickhouse.migrate", "clickhouse"):
            done = migrate_clickhouse(settings)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except ClickHouseError as error:
        raise Refused("ClickHouse cannot be reached" if error.code is None else f"ClickHouse: {error}") from None
    say("".join(f"ClickHouse: {name}\n" for name in done) + "ClickHouse: up to date")
    try:
        asyncio.run(ensure_topics(settings))
    except TopicsError as error:
        raise Refused(str(error)) from None
    say("Kafka: topics are there")
