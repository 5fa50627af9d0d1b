"""Ways to give stored events new copies, beside each other on one engine: see ``bench.dimensions --alternatives``.

The same new copies by the same expressions: a lightweight update (patch parts), a mutation (parts written anew), and a
dictionary that a query asks for each row, so that no event is changed at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from bench.engine import Engine, temporary_engine
from bench.mix import user_id
from bench.stored import let_merge
from bench.users import OLD, QUERY, attributes, fill, patches, store_users
from midstream.clickhouse.client import ClickHouse, open_client
from midstream.correct.expressions import COPIES, new_copy, new_flags, new_location
from midstream.correct.overlay import IDS_SHOWN, Objects, Overlay, shown
from midstream.dimension_location import derive_location
from midstream.dimensions import DimensionType

_TIMEOUT_MS = 600_000
_SAMPLE_S = 0.02
_QUERIES = 3
_TABLE = "learning_events"
_USER = DimensionType.USER
(_COPY,) = COPIES[_USER]
_CHANGES = (
    f"user = {new_copy(_COPY, shown)}, flags = {new_flags(_USER, shown)}, location = {new_location(_USER, shown)} "
    f"WHERE {_COPY.applies} AND {_COPY.id} IN {IDS_SHOWN}"
)

_GRANTS = ("GRANT CREATE DICTIONARY, DROP DICTIONARY, dictGet, SYSTEM RELOAD DICTIONARY, SOURCES ON *.*",)
_DICTIONARY = """CREATE DICTIONARY users (id String, attributes String) PRIMARY KEY id
SOURCE(CLICKHOUSE(QUERY 'SELECT id, attributes FROM midstream.dimension_rows FINAL WHERE type = ''user'''))
LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(0)"""
_DICTIONARY_QUERY = QUERY.replace("user,", "dictGetOrDefault('users', 'attributes', tuple(actor_id), user),")


class Cost:
    """What the engine uses from entry to exit: seconds, CPU, bytes that it writes, the most memory it holds."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory", daemon=True)
        self._peak_bytes = 0
        self.told: dict[str, Any] = {}

    def __enter__(self) -> Cost:
        self._held_bytes = self._engine.process.memory_info().rss
        self._written = self._engine.process.io_counters().write_chars
        self._cpu_s, self._began = self._engine.cpu_s(), time.monotonic()
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        took_s, cpu_s = time.monotonic() - self._began, self._engine.cpu_s() - self._cpu_s
        written = self._engine.process.io_counters().write_chars - self._written
        self._over.set()
        self._sampler.join()
        self.told = {
            "seconds": round(took_s, 2),
            "cpu_s": round(cpu_s, 2),
            "written_mb": round(written / 1e6, 1),
            "more_memory_mb": round((self._peak_bytes - self._held_bytes) / 1e6),
        }

    def _sample(self) -> None:
        while True:
            self._peak_bytes = max(self._peak_bytes, self._engine.process.memory_info().rss)
            if self._over.wait(_SAMPLE_S):
                return


def compare(users: int, events: int, changed: Sequence[int]) -> dict[str, Any]:
    """Return what each way takes for so many changed users, one number after the other, and what a query takes then."""
    with temporary_engine(grants=_GRANTS) as engine:
        clickhouse = open_client(engine.settings, timeout_ms=_TIMEOUT_MS)
        store_users(clickhouse, range(users), OLD)
        fill(clickhouse, events, max(changed))
        let_merge(clickhouse)
        ways = _Ways(engine, clickhouse)
        result: dict[str, Any] = {"users": users, "events": events, "query_s": ways.query_s(), "wrong": ways.wrong}
        result["dictionary"] = {"the first load": ways.make_dictionary()}
        for count in changed:
            result["dictionary"][f"{count} users"] = ways.reload_dictionary(count)
        clickhouse.command("DROP DICTIONARY users")
        for count in changed:
            result.setdefault("lightweight update", {})[f"{count} users"] = ways.update(count)
        for count in changed:
            result.setdefault("mutation", {})[f"{count} users"] = ways.mutate(count)
        clickhouse.close()
    return result


class _Ways:
    def __init__(self, engine: Engine, clickhouse: ClickHouse) -> None:
        self._engine = engine
        self._clickhouse = clickhouse
        self._overlay = Overlay(clickhouse, is_cluster=False)
        self.wrong: list[str] = []

    def query_s(self, query: str = QUERY) -> float:
        took = []
        for _ in range(_QUERIES):
            began = time.monotonic()
            self._clickhouse.rows(query)
            took.append(time.monotonic() - began)
        return round(min(took), 2)

    def make_dictionary(self) -> dict[str, Any]:
        self._clickhouse.command(_DICTIONARY)
        cost = self._cost(lambda: self._clickhouse.command("SYSTEM RELOAD DICTIONARY users"))
        ((held_bytes,),) = self._clickhouse.rows("SELECT bytes_allocated FROM system.dictionaries WHERE name = 'users'")
        return {**cost, "held_mb": round(held_bytes / 1e6), "query_s": self.query_s(_DICTIONARY_QUERY)}

    def reload_dictionary(self, count: int) -> dict[str, Any]:
        mark = f"Dictionary{count}"
        store_users(self._clickhouse, range(count), mark)
        cost = self._cost(lambda: self._clickhouse.command("SYSTEM RELOAD DICTIONARY users"))
        self._check(mark, count, _DICTIONARY_QUERY)
        return {**cost, "query_s": self.query_s(_DICTIONARY_QUERY)}

    def update(self, count: int) -> dict[str, Any]:
        mark = f"Update{count}"
        self._show(count, mark)
        overlaid_s = self.query_s()
        cost = self._cost(lambda: self._clickhouse.command(f"UPDATE {_TABLE} SET {_CHANGES}"))  # noqa: S608  constants
        self._overlay.clear()
        self._check(mark, count)
        found = {**cost, "query_overlaid_s": overlaid_s, "patches": patches(self._clickhouse)}
        found["query_with_patches_s"] = self.query_s()
        found["in place"] = self._cost(
            lambda: self._clickhouse.command(f"ALTER TABLE {_TABLE} APPLY PATCHES", {"mutations_sync": 1})
        )
        self._check(mark, count)
        return {**found, "query_in_place_s": self.query_s()}

    def mutate(self, count: int) -> dict[str, Any]:
        mark = f"Mutation{count}"
        self._show(count, mark)
        cost = self._cost(
            lambda: self._clickhouse.command(f"ALTER TABLE {_TABLE} UPDATE {_CHANGES}", {"mutations_sync": 1})
        )
        self._overlay.clear()
        self._check(mark, count)
        return {**cost, "query_s": self.query_s()}

    def _show(self, count: int, mark: str) -> None:
        objects = Objects(_USER.value, False)
        for number in range(count):
            text = orjson.dumps(attributes(number, mark)).decode()
            objects.ids.append(user_id(number))
            objects.texts.append(text)
            objects.locations.append(derive_location(_USER, text))
            objects.states.append("found")
        self._overlay.show(objects)

    def _cost(self, work: Callable[[], object]) -> dict[str, Any]:
        with Cost(self._engine) as cost:
            work()
        return cost.told

    def _check(self, mark: str, count: int, query: str = QUERY) -> None:
        """See that as many events have the copies of this mark as there are events of the changed users."""
        ids = [user_id(number) for number in range(count)]
        asked = "SELECT count() FROM events WHERE actor_type = 'User' AND actor_id IN {ids:Array(String)}"
        ((wanted,),) = self._clickhouse.rows(asked, {"ids": ids})
        found = sum(events for state, events in self._clickhouse.rows(query) if state.startswith(f"{mark} "))
        if found != wanted or not wanted:
            self.wrong.append(f"{mark}: {found:,} events show the new copies instead of {wanted:,}")
