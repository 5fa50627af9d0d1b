"""Stand-ins for Kafka, ClickHouse and what other parts do for a job; a test says when they fail."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiokafka.structs import TopicPartition

from midstream.dimensions import Dimension, DimensionType, InternalType
from midstream.kafka.dimension_publisher import PublishError
from serve.jobs.errors import FailedError
from serve.jobs.tools import Erased

USER = DimensionType.USER

_PORTION_S = 0.002


def row(id_: str, attributes: str = "{}", version: int = 1, *, deleted: bool = False) -> Dimension:
    return Dimension(USER, id_, attributes, version, deleted, 1_000)


class World:
    """What there is, and what was done, in order.

    ``fails`` holds errors to raise, by the name of what is called, each once.
    """

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], Dimension] = {}
        self.events = 0
        """Events that a correction changes."""
        self.done: list[str] = []
        self.fails: dict[str, list[BaseException]] = {}
        self.hooks: dict[str, Callable[[], None]] = {}
        """Called, in whatever thread, when something of this name is called."""
        self.behind = {"midstream-dimensions": 0, "midstream-store": 0}
        self.erased: set[str] = set()
        self.answers: dict[str, dict[str, bool]] = {}

    def call(self, name: str) -> None:
        self.done.append(name)
        if hook := self.hooks.pop(name, None):
            hook()
        if errors := self.fails.get(name):
            raise errors.pop(0)

    def count(self, name: str) -> int:
        return self.done.count(name)

    def put(self, *rows: Dimension) -> None:
        for one in rows:
            known = self.stored.get((one.type, one.id))
            if known is None or one.version >= known.version:
                self.stored[one.type, one.id] = one

    # ClickHouse

    def rows(self, sql: str, parameters: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
        self.call("rows")
        type_, ids = parameters["type"], parameters.get("ids")
        found = sorted((id_, one) for (kind, id_), one in self.stored.items() if kind == type_)
        if ids is not None:
            found = [(id_, one) for id_, one in found if id_ in ids]
        if "MD5" in sql:
            return [(id_, one.version, one.deleted, _md5(one.attributes)) for id_, one in found]
        found = [(id_, one) for id_, one in found if not one.deleted]
        if "count()" in sql:
            return [(len(found),)]
        if "version" not in sql:
            return [(id_,) for id_, _ in found]
        found = [(id_, one) for id_, one in found if one.updated_at_ms < parameters["before"]]
        if "after" in parameters:
            found = [(id_, one) for id_, one in found if id_ > parameters["after"]][: parameters["limit"]]
        return [(id_, one.version, one.deleted) for id_, one in found]


class Publisher:
    def __init__(self, world: World) -> None:
        self._world = world

    async def publish(self, one: Dimension) -> None:
        self._world.call("publish")
        self._world.put(one)

    async def forget(self, one: Dimension) -> None:
        self._world.call(f"forget {one.id}")

    def bulk(self) -> Bulk:
        return Bulk(self._world)


class Bulk:
    """Acknowledges when it is finished, and what came before an error."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rows: list[Dimension] = []
        self.acknowledged = 0

    async def add(self, rows: Sequence[Dimension]) -> None:
        self._acknowledge()
        self._world.call("add")
        self._rows += rows

    async def finish(self) -> None:
        self._acknowledge()
        self._world.call("finish")

    def _acknowledge(self) -> None:
        self._world.put(*self._rows)
        self.acknowledged += len(self._rows)
        self._rows = []


class Follows:
    def __init__(self, world: World) -> None:
        self._world = world

    async def ends(self, topic: str) -> Mapping[TopicPartition, int]:
        self._world.call(f"ends {topic}")
        return {TopicPartition(topic, 0): 10}

    async def behind(self, group: str, ends: Mapping[TopicPartition, int]) -> int:
        self._world.call(f"behind {group}")
        return self._world.behind[group]


class Sources:
    """Has a source of users if ``given`` is not None."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.given: list[Dimension] | None = None
        self.whole = True
        self.watermark: str | None = None
        self.asked: list[tuple[Sequence[str] | None, str | None]] = []
        self.staged: list[Staged] = []

    def has(self, type_: DimensionType) -> bool:
        self._world.call("has")
        return self.given is not None and type_ == USER

    def read(
        self, type_: DimensionType, ids: Sequence[str] | None, since: str | None, progress: Callable[[int], None]
    ) -> Staged:
        self._world.call("read")
        assert self.given is not None
        self.asked.append((ids, since))
        for number in range(len(self.given)):
            progress(number)
        self.staged.append(Staged(self._world, self.given, ids, self.whole, self.watermark))
        return self.staged[-1]


class Staged:
    began_ms = 2_000

    def __init__(
        self, world: World, rows: list[Dimension], ids: Sequence[str] | None, whole: bool, watermark: str | None
    ) -> None:
        self._world = world
        self._ids = ids
        self._rows = [one for one in rows if ids is None or one.id in ids]
        self.rows = len(self._rows)
        self.refused = 0
        self.whole = whole
        self.watermark = watermark
        self.is_open = True

    def refusals(self) -> list[dict[str, str]]:
        return []

    def add_gone(self, known: Iterable[tuple[str, int, bool]], *, force: bool) -> tuple[int, int]:
        self._world.call("add_gone")
        there = {one.id for one in self._rows}
        gone = [
            row(id_, "{}", version + 1, deleted=True)
            for id_, version, deleted in known
            if not deleted and id_ not in there
        ]
        if gone and not there and not force:
            raise FailedError("SOURCE_SHRUNK: the source has none")
        self._rows += gone
        return len(gone), 0

    def blocks(self) -> Iterator[Sequence[Dimension]]:
        for start in range(0, len(self._rows), 2):
            self._world.call("block")
            yield self._rows[start : start + 2]

    def answers(self) -> Mapping[str, bool]:
        return {id_: any(one.id == id_ for one in self._rows) for id_ in self._ids or ()}

    def close(self) -> None:
        self.is_open = False


class Corrects:
    """Changes an event at each of ``World.events`` portions."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.asked: list[tuple[str, Sequence[str] | None]] = []
        self.at_once = 0
        self._lock = threading.Lock()

    def correct(
        self,
        type_: DimensionType,
        ids: Sequence[str] | None,
        progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
    ) -> int:
        assert self._lock.acquire(blocking=False), "two corrections at once"
        try:
            self._world.call("correct")
            self.asked.append((type_, ids))
            changed = 0
            for number in range(self._world.events):
                if should_stop():
                    break
                self._world.call("portion")
                time.sleep(_PORTION_S)
                changed += 1
                progress(number + 1, self._world.events)
            return changed
        finally:
            self._lock.release()


class Erases:
    def __init__(self, world: World) -> None:
        self._world = world

    def erase(
        self,
        type_: DimensionType,
        id_: str,
        digest: str,
        progress: Callable[[str, int, int], None],
        check: Callable[[], None],
    ) -> Erased:
        self._world.call("erase")
        assert (InternalType.ERASED, digest) in self._world.stored
        assert all(one.deleted for (type_, stored), one in self._world.stored.items() if stored == id_)
        assert digest in self._world.erased  # known before anything is changed
        for number in range(3):
            progress("events", number, 3)
            check()
        return Erased({"events": 5, "rejects": 1}, {"id": f"erased-{digest}"})


class KnowsErased:
    def __init__(self, world: World) -> None:
        self._world = world

    def digest(self, type_: str, id_: str) -> str:
        return f"{abs(hash((type_, id_))):024x}"[:24]

    def add(self, digest: str, type_: str, job_id: str) -> None:
        self._world.call("erased.add")
        self._world.erased.add(digest)

    def among(self, type_: str, ids: Sequence[str]) -> set[str]:
        return {id_ for id_ in ids if self.digest(type_, id_) in self._world.erased}

    def forget(self, type_: str, id_: str, digest: str) -> None:
        self._world.call("erased.forget")


class Watermarks:
    def __init__(self, world: World) -> None:
        self._world = world
        self.noted: str | None = None

    def watermark(self, type_: str) -> str | None:
        return self.noted

    def note(self, type_: str, watermark: str) -> None:
        self._world.call("note")
        self.noted = watermark


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest().upper()


AWAY = PublishError("Kafka did not acknowledge in time")
