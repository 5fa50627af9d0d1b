"""``midstream check``: whether settings hold and what they name can be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTimeError
from typing import TYPE_CHECKING

import click

from midstream.cli._common import print_json, read_settings

if TYPE_CHECKING:
    from midstream.settings import Settings

_TIMEOUT_S = 5.0


class _BadError(Exception):
    """A check failed; the message says why."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects: check, ok, message.")
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Check settings, schemas, registry, Kafka and ClickHouse: a line each, in five seconds; exit 1 when one fails."""
    settings = read_settings()
    checks: dict[str, Callable[[Settings], str]] = {
        "schemas": _schemas,
        "registry": _registry,
        "kafka": _kafka,
        "clickhouse": _clickhouse,
    }
    results = [("settings", True, f"valid; home {settings.home}")]
    with ThreadPoolExecutor(len(checks)) as pool:
        running = {name: pool.submit(check, settings) for name, check in checks.items()}
        for name, future in running.items():
            try:
                results.append((name, True, future.result(_TIMEOUT_S + 1)))
            except _BadError as error:
                results.append((name, False, str(error)))
            except NotInTimeError:
                results.append((name, False, f"no answer in {_TIMEOUT_S:.0f} s"))
    if as_json:
        print_json([{"check": name, "ok": good, "message": message} for name, good, message in results])
    else:
        for name, good, message in results:
            click.echo(f"{'ok  ' if good else 'FAIL'}  {name:10}  {message}")
    if not all(good for _, good, _ in results):
        ctx.exit(1)


def _schemas(settings: Settings) -> str:
    from midstream.events.schemas import SchemaError, load_schemas

    try:
        schemas = load_schemas(settings.schemas)
    except SchemaError as error:
        raise _BadError(str(error)) from None
    return f"{len(schemas)} event types"


def _registry(settings: Settings) -> str:
    from midstream.registry.credentials import Credentials
    from midstream.registry.errors import RegistryError
    from midstream.registry.keyfile import key_path

    try:
        credentials = Credentials(settings, wait_ms=int(_TIMEOUT_S * 1000))
        try:
            found = credentials.list_all()
        finally:
            credentials.close()
    except RegistryError as error:
        raise _BadError(f"{error} (`midstream migrate` creates it)") from None
    path = key_path(settings)
    if not path.exists():
        raise _BadError(f"{path} is missing")
    if path.stat().st_mode & 0o077:
        raise _BadError(f"{path} can be read by others: chmod 600 it")
    active = sum(one.state == "active" for one in found)
    return f"{active} active credential{'' if active == 1 else 's'}"


def _kafka(settings: Settings) -> str:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    from midstream import topics

    async def list_topics() -> set[str]:
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_servers, request_timeout_ms=int(_TIMEOUT_S * 1000))
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await admin.start()
                return set(await admin.list_topics())
        finally:
            await admin.close()

    try:
        there = asyncio.run(list_topics())
    except (KafkaError, OSError, TimeoutError) as error:
        raise _BadError(f"{settings.kafka_servers} cannot be reached: {type(error).__name__}") from None
    missing = [topic.name for topic in topics.ALL if topic.name not in there]
    if missing:
        raise _BadError(f"{settings.kafka_servers} lacks the topics {', '.join(missing)}")
    return f"{settings.kafka_servers}, {len(topics.ALL)} topics"


def _clickhouse(settings: Settings) -> str:
    from midstream.clickhouse.client import ClickHouseError, open_client, parse_dsn
    from midstream.settings import SettingsError

    try:
        dsn = parse_dsn(settings.clickhouse_dsn)
    except SettingsError as error:
        raise _BadError(str(error)) from None
    where = f"{dsn.host}:{dsn.port}/{dsn.database}"
    try:
        client = open_client(settings, timeout_ms=int(_TIMEOUT_S * 1000))
        try:
            found = client.rows(
                "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'events'"
            )
        finally:
            client.close()
    except ClickHouseError as error:
        raise _BadError(f"{where} cannot be reached" if error.code is None else f"{where} refuses: {error}") from None
    if not found[0][0]:
        raise _BadError(f"{where} has no table events: run `midstream migrate`")
    return where
