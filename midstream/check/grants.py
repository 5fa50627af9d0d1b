"""Rights in ClickHouse. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from midstream.check.result import Result, fail, ok, warn

_READS = {"SELECT", "SHOW", "SHOW TABLES", "SHOW COLUMNS", "SHOW DATABASES", "SHOW DICTIONARIES", "dictGet"}


def judge_rights(user: str, held: Mapping[str, bool]) -> list[Result]:
    """Judge whether our user may do what one of our processes does; `held` says it by role of `midstream grants`."""
    roles = [role for role, has in held.items() if has]
    if not roles:
        change = f"run what `midstream grants` prints; GRANT {', '.join(held)} TO {user}, or that of its process"
        return [fail("clickhouse.rights", f"{user} lacks rights for whichever process of ours", change)]
    return [ok("clickhouse.rights", f"{user} has the rights of {', '.join(roles)}")]


def judge_analysts(ours: str, database: str, grants: Iterable[tuple[str, str, str | None]]) -> Result:
    """Judge whether some other user reads our database and does nothing else.

    Args:
        ours: our own user.
        database: ours.
        grants: user, access type, and the database it is for (None: all).
    """
    by_user: dict[str, list[tuple[str, str | None]]] = {}
    for user, access, where in grants:
        by_user.setdefault(user, []).append((access, where))
    readers = [
        user
        for user, held in by_user.items()
        if user != ours
        and any(access == "SELECT" and where in (None, database) for access, where in held)
        and all(access in _READS for access, _ in held)
    ]
    if readers:
        return ok("clickhouse.analyst", f"read-only: {', '.join(sorted(readers))}")
    change = "CREATE USER analyst IDENTIFIED BY '...'; GRANT midstream_analyst TO analyst (see `midstream grants`)"
    return warn("clickhouse.analyst", "no user may only read: analysts would have to use one that writes", change)
