"""Ids that are given or counted: the same rule in both databases, whose own counters pass over what was given."""

from __future__ import annotations

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from midstream.registry.academies.checks import MAX_ID
from midstream.registry.academies.errors import AcademyError
from midstream.registry.academies.tables import Academy, User


def next_id(session: Session, table: type[Academy] | type[User]) -> int:
    """Return the number above the highest of a table, which nobody else adds to until the transaction ends.

    Raises:
        AcademyError: the highest is 2^63-1.
    """
    if session.get_bind().dialect.name == "postgresql":  # a transaction of SQLite has locked the whole file
        session.execute(text(f"LOCK TABLE {table.__tablename__} IN SHARE ROW EXCLUSIVE MODE"))
    highest = session.scalar(select(func.max(table.id))) or 0
    if highest >= MAX_ID:
        raise AcademyError("no id is left above the highest: give one")
    return highest + 1
