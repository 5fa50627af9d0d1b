"""ClickHouse: who lets us in, its version, tables, rights, users, disks, clock and certificate."""

from __future__ import annotations

import time
from typing import Any

from midstream.check.certificates import check_certificate
from midstream.check.clocks import judge_skew
from midstream.check.grants import judge_analysts, judge_rights
from midstream.check.machine import judge_room
from midstream.check.result import Result, fail, ok, warn
from midstream.clickhouse.client import ClickHouse, ClickHouseError, Dsn, open_client, parse_dsn
from midstream.clickhouse.grants import PROCESSES, Role, grants
from midstream.clickhouse.migrate import load_migrations, table_names
from midstream.faults import MEANINGS, Fault
from midstream.settings import Settings, SettingsError
from midstream.settings.tls import client_context

MIN_VERSION = (26, 4)
"""Of the settings of projections in ``schemas/clickhouse/0007_lookup.sql``."""

MIN_WINDOW = 10_000
"""Blocks whose tokens a table must remember, so that a replay is stored once."""

_MIGRATE = "midstream migrate"
_ACCESS_DENIED = 497
_UNKNOWN_TABLE = 60
_SYNTAX_ERROR = 62
"""The local engine's answer to CHECK GRANT: in process, it cannot write the result of one into a file."""

_CHANGES = {
    Fault.UNREACHABLE: "start ClickHouse, or set MIDSTREAM_CLICKHOUSE to where it listens",
    Fault.NOT_TLS: "write http:// in MIDSTREAM_CLICKHOUSE, or the port that speaks HTTPS (8443)",
    Fault.CLOSED: "write http:// or https:// in MIDSTREAM_CLICKHOUSE as that port speaks",
    Fault.UNKNOWN_CA: "set MIDSTREAM_CLICKHOUSE_CA to the PEM file of the CA that issued ClickHouse's certificate",
    Fault.CERTIFICATE_EXPIRED: "renew ClickHouse's certificate, and look at both clocks",
    Fault.WRONG_HOST_NAME: "name ClickHouse in MIDSTREAM_CLICKHOUSE as its certificate does, or give it another one",
    Fault.CERTIFICATE_INVALID: "give ClickHouse a valid certificate",
    Fault.OUR_CERTIFICATE_REFUSED: "let ClickHouse's HTTPS port not ask for client certificates: we log in by password",
    Fault.LOGIN_REFUSED: "correct user and password in MIDSTREAM_CLICKHOUSE, or create the user in ClickHouse",
    Fault.NOT_ALLOWED: "give our user the rights of docs/connections.md#rights-in-clickhouse",
}


def check_clickhouse(settings: Settings, timeout_s: float) -> list[Result]:
    """Return what is to be said of ClickHouse; each wait for it is at most ``timeout_s``."""
    try:
        dsn = parse_dsn(settings.clickhouse_dsn)
    except SettingsError as error:
        return [
            fail("clickhouse", str(error), "set MIDSTREAM_CLICKHOUSE to http[s]://user:password@host:port/database")
        ]
    try:
        client = open_client(settings, database="", timeout_ms=int(timeout_s * 1000))
        try:
            results = _ask(client, dsn, settings)
        finally:
            client.close()
    except ClickHouseError as error:
        return [_refused(dsn, error)]
    if dsn.interface == "https":
        context = client_context("MIDSTREAM_CLICKHOUSE", settings.clickhouse_ca)
        results.append(check_certificate("clickhouse.certificate", dsn.host, dsn.port, context, timeout_s))
    elif settings.clickhouse:
        message = f"{dsn.host}:{dsn.port} is reached by http: password and events are read by whoever sees the network"
        results.append(warn("clickhouse.security", message, "let it listen by HTTPS; write https:// and that port"))
    return results


def _refused(dsn: Dsn, error: ClickHouseError) -> Result:
    where = f"{dsn.host}:{dsn.port}/{dsn.database}"
    if error.fault is None:
        return fail("clickhouse", f"{where} refuses: {error}", "look at its log")
    said = f"{where} cannot be reached: {error.fault}: {MEANINGS[error.fault]}"
    return fail("clickhouse", said, _CHANGES.get(error.fault, "look at its log"))


def _ask(client: ClickHouse, dsn: Dsn, settings: Settings) -> list[Result]:
    asked_at = time.time()
    [(version, database_there, now_ms)] = client.rows(
        "SELECT version(), (SELECT count() FROM system.databases WHERE name = {name:String}), "
        "toUnixTimestamp64Milli(now64(3))",
        {"name": dsn.database},
    )
    answered_at = time.time()
    where = f"{dsn.host}:{dsn.port}/{dsn.database}"
    results = [_version(where, str(version))]
    if database_there:
        results += _migrations(client, dsn, settings) + _windows(client, dsn)
    else:
        results.append(fail("clickhouse.tables", f"there is no database {dsn.database}", _MIGRATE))
    results += _rights(client, dsn, settings) + _analysts(client, dsn, settings) + _disks(client)
    middle_s, beyond_s = (asked_at + answered_at) / 2, (answered_at - asked_at) / 2
    return [*results, judge_skew("clickhouse.clock", now_ms / 1000 - middle_s, beyond_s)]


def _version(where: str, version: str) -> Result:
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < MIN_VERSION:
        least = ".".join(map(str, MIN_VERSION))
        return fail("clickhouse", f"{where}: version {version}", f"install ClickHouse {least} or newer")
    return ok("clickhouse", f"{where}, version {version}")


def _migrations(client: ClickHouse, dsn: Dsn, settings: Settings) -> list[Result]:
    table = f"`{dsn.database}`.schema_migrations{'_local' if settings.clickhouse_cluster else ''}"
    try:
        done = {int(row[0]) for row in client.rows(f"SELECT DISTINCT version FROM {table}")}  # noqa: S608 - of settings
    except ClickHouseError as error:
        if error.code != _UNKNOWN_TABLE:
            raise
        done = set()
    wanted = {one.version: one.name for one in load_migrations()}
    if missing := [f"{number:04d}_{name}" for number, name in wanted.items() if number not in done]:
        return [fail("clickhouse.tables", f"not applied: {', '.join(missing)}", _MIGRATE)]
    if newer := done - wanted.keys():
        message = f"migrations {', '.join(map(str, sorted(newer)))} are of a newer Midstream"
        return [warn("clickhouse.tables", message, "finish the upgrade, so that all processes are of that version")]
    return [ok("clickhouse.tables", f"all {len(wanted)} migrations")]


def _windows(client: ClickHouse, dsn: Dsn) -> list[Result]:
    """What tokens rest on: a table that an administrator has made anew or altered may forget them."""
    rows = client.rows(
        "SELECT name, toUInt64OrZero(extract(engine_full, 'deduplication_window = (\\\\d+)')) FROM system.tables "
        "WHERE database = {name:String} AND engine_full LIKE '%deduplication_window = %'",
        {"name": dsn.database},
    )
    return [
        fail(
            "clickhouse.deduplication",
            f"{name} remembers {window} inserts, must be {MIN_WINDOW}: a replay could be stored twice",
            f"ALTER TABLE {dsn.database}.{name} MODIFY SETTING non_replicated_deduplication_window = {MIN_WINDOW} "
            "(replicated_deduplication_window on a cluster)",
        )
        for name, window in rows
        if window < MIN_WINDOW
    ]


def _rights(client: ClickHouse, dsn: Dsn, settings: Settings) -> list[Result]:
    is_table = table_names().__contains__

    def holds(role: Role) -> bool:
        rights = ", ".join(grants(role, dsn.database, settings.clickhouse_cluster, is_table=is_table))
        return bool(client.rows(f"CHECK GRANT {rights}")[0][0])

    try:
        held = {role.name: holds(role) for role in PROCESSES}
    except ClickHouseError as error:
        if error.code != _SYNTAX_ERROR:
            raise
        return [ok("clickhouse.rights", "not checked: the local engine has no users")]
    return judge_rights(dsn.user, held)


def _analysts(client: ClickHouse, dsn: Dsn, settings: Settings) -> list[Result]:
    if not settings.clickhouse:
        return [ok("clickhouse.analyst", "not checked: the local engine has no users")]
    try:
        found = client.rows(
            "SELECT user_name, access_type, database FROM (SELECT user_name, access_type, database FROM system.grants "
            "WHERE user_name IS NOT NULL UNION ALL SELECT r.user_name, g.access_type, g.database FROM system.grants g "
            "JOIN system.role_grants r ON r.granted_role_name = g.role_name WHERE r.user_name IS NOT NULL)"
        )
    except ClickHouseError as error:
        if error.code != _ACCESS_DENIED:
            raise
        change = f"GRANT SHOW USERS, SHOW ROLES ON *.* TO {dsn.user}, or see to it yourself"
        return [warn("clickhouse.analyst", "whether a read-only user exists cannot be seen", change)]
    return [judge_analysts(dsn.user, dsn.database, [(user, access, where) for user, access, where in found])]


def _disks(client: ClickHouse) -> list[Result]:
    rows: Any = client.rows("SELECT name, free_space, total_space FROM system.disks WHERE total_space > 0")
    return [judge_room("clickhouse.disk", f"its disk {name}", free, total, 0) for name, free, total in rows]
