"""Takes an erased id out of the jobs and the acts of administrators that named it."""

from __future__ import annotations

import json
from collections.abc import Callable

from sqlalchemy import Engine, String, cast, func, or_, select, update

from midstream.registry.admin_log import forget_object
from midstream.registry.engine import unavailable_as_such
from midstream.registry.sync.jobs import ENDED
from midstream.registry.sync.tables import SyncJob


def forget_id(engine: Engine, type_: str, id_: str, pseudonym: str, go_on: Callable[[], None] = lambda: None) -> int:
    """Put a pseudonym in the place of an id in the jobs of its type that have ended, and in the admin log.

    Jobs are read one at a time, as each may name very many ids.

    Args:
        engine: the registry.
        type_: of the object.
        id_: what it is called.
        pseudonym: what it is called from now on.
        go_on: called before each job; may raise to end it.

    Returns:
        In how many jobs it was named.

    Raises:
        RegistryUnavailable: the registry cannot be used.
    """
    text = json.dumps(id_)  # as both columns hold it
    named = func.instr if engine.dialect.name == "sqlite" else func.strpos
    holds = or_(*(named(cast(column, String), text) > 0 for column in (SyncJob.ids, SyncJob.response)))
    query = select(SyncJob.id).where(SyncJob.type == type_, SyncJob.status.in_(ENDED), holds)
    with unavailable_as_such(), engine.connect() as connection:
        found = list(connection.scalars(query))
    for job_id in found:
        go_on()
        with unavailable_as_such(), engine.begin() as connection:
            one = select(SyncJob.ids, SyncJob.response).where(SyncJob.id == job_id).with_for_update()
            row = connection.execute(one).one_or_none()
            if row is None:
                continue
            values = {
                "ids": None if row.ids is None else [pseudonym if one == id_ else one for one in row.ids],
                "response": None
                if row.response is None
                else {pseudonym if name == id_ else name: value for name, value in row.response.items()},
            }
            connection.execute(update(SyncJob).where(SyncJob.id == job_id).values(**values))
    with unavailable_as_such(), engine.begin() as connection:
        forget_object(connection, f"{type_}/{id_}", pseudonym)
    return len(found)
