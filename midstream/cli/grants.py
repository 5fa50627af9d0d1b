"""``midstream grants``: the SQL of ClickHouse's roles."""

from __future__ import annotations

import re

import click

from midstream.cli._common import read_settings


@click.command()
@click.option("--database", help="Default: that of MIDSTREAM_CLICKHOUSE.")
@click.option("--cluster", help="Default: MIDSTREAM_CLICKHOUSE_CLUSTER; none: one server.")
def grants(database: str | None, cluster: str | None) -> None:
    """Print SQL that makes a role for each kind of process, and one for analysts, with the rights that each needs.

    It may be run again after an upgrade, and connects to nothing. An administrator of ClickHouse runs it, and gives
    each user one role: CREATE USER ...; GRANT midstream_writer TO ...; SET DEFAULT ROLE ALL TO ...
    """
    from midstream.clickhouse.client import parse_dsn
    from midstream.clickhouse.grants import ROLES, statements
    from midstream.clickhouse.migrate import table_names

    settings = read_settings()
    database = parse_dsn(settings.clickhouse_dsn).database if database is None else database
    cluster = settings.clickhouse_cluster if cluster is None else cluster
    for name, value in {"--database": database, "--cluster": cluster}.items():
        if re.fullmatch(r"[A-Za-z0-9_.{}-]*", value) is None:
            raise click.UsageError(f"{name} takes letters, digits and _ . - only")
    tables = table_names()
    for role in ROLES:
        for statement in statements(role, database, cluster, is_table=tables.__contains__):
            click.echo(f"{statement};")
