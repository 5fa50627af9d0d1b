"""An engine and a home of its own for each test; Kafka's part of a backup is told, not asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka.structs import TopicPartition

from midstream.backup import make, restore
from midstream.backup.manifest import KafkaPart, Manifest, Position, Seen
from midstream.backup.positions import SetBack
from midstream.clickhouse.client import ClickHouse, open_client
from midstream.clickhouse.migrate import migrate as migrate_clickhouse
from midstream.settings import Settings
from tests.contract.engine.conftest import EngineProcess, free_port

KAFKA = KafkaPart(
    [Seen("telemetry.raw", 0, 0, 9, 7)],
    [Position("midstream-store", "telemetry.valid", 0, 4), Position("midstream-receipts", "telemetry.raw", 0, 8)],
)


@dataclass
class Told:
    """What Kafka is said to hold, and what it was asked to do."""

    erased: set[str] = field(default_factory=set)
    set_back: list[KafkaPart] = field(default_factory=list)


@dataclass
class Deployment:
    """A home with an engine that runs."""

    settings: Settings
    clickhouse: ClickHouse
    kafka: Told
    folder: Path

    def backup(self, name: str = "full", *, base: str = "", with_key: bool = True, wait_s: float = 1.0) -> Manifest:
        """Make one below ``folder``."""
        on = self.folder / base if base else None
        wanted = make.Wanted(self.folder / name, "", on, with_key, wait_s)
        return make.make_backup(self.settings, wanted, lambda what, share: None)

    def restore(
        self, name: str = "full", *, replace: bool = False, parts: tuple[str, ...] = restore.PARTS
    ) -> restore.Restored:
        """Restore one."""
        wanted = restore.Wanted(self.folder / name, parts, replace)
        return restore.restore_backup(self.settings, wanted, lambda what, share: None)

    def add_events(self, first: int, count: int, table: str = "learning_events") -> None:
        """Store events whose mids are numbers."""
        self.clickhouse.command(
            f"INSERT INTO {table} (mid, mid_hash, received_at, object_id, content, flags) "
            f"SELECT toString(number), xxh3(toString(number)), toDateTime64('2026-01-01 00:00:00', 3), 'c1', 'old', "
            f'\'{{"content":"found"}}\' FROM numbers({first}, {count})'
        )

    def value(self, sql: str) -> object:
        """Return the one value of a query."""
        return self.clickhouse.rows(sql)[0][0]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    kafka = Told()

    async def read_positions(_: Settings) -> KafkaPart:
        return KAFKA

    async def nothing(*_: object, **__: object) -> None:
        return None

    async def set_back(_: Settings, then: KafkaPart) -> SetBack:
        kafka.set_back.append(then)
        return SetBack(5)

    async def beginnings(*_: object) -> dict[TopicPartition, int]:
        return {}

    async def erased(*_: object) -> set[str]:
        return set(kafka.erased)

    monkeypatch.setattr(make, "read_positions", read_positions)
    monkeypatch.setattr(restore, "ensure_topics", nothing)
    monkeypatch.setattr(restore, "check_without_members", nothing)
    monkeypatch.setattr(restore, "set_back", set_back)
    monkeypatch.setattr(restore, "beginnings", beginnings)
    monkeypatch.setattr(restore, "_replay_writes", lambda *_: beginnings_of_nothing())
    monkeypatch.setattr(restore.carried, "erased_in_kafka", erased)
    return kafka


async def beginnings_of_nothing() -> int:
    return 0


Deploy = Callable[[str], Deployment]
Engines = Callable[[str], EngineProcess]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Engines on homes by name, started when they are first wanted."""
    started: dict[str, EngineProcess] = {}

    def start(name: str) -> EngineProcess:
        if name not in started:
            started[name] = EngineProcess(tmp_path_factory.mktemp(name), free_port()).wait_ready()
        return started[name]

    yield start
    for process in started.values():
        assert process.stop() == 0, process.text


@pytest.fixture
def deploy(engines: Engines, told: Told, tmp_path: Path, empty_registry: Path) -> Iterator[Deploy]:
    """Give deployments by name, with all tables and a registry that has the same key, and nothing in them."""
    clients: list[ClickHouse] = []

    def start(name: str) -> Deployment:
        engine = engines(name)
        settings = Settings(home=engine.home, clickhouse="", kafka="", registry="", local_clickhouse_port=engine.port)
        _empty(engine)
        for path in empty_registry.glob("registry.*"):
            shutil.copy(path, engine.home)
        migrate_clickhouse(settings)
        clients.append(open_client(settings))
        return Deployment(settings, clients[-1], told, tmp_path)

    yield start
    for client in clients:
        client.close()


def _empty(engine: EngineProcess) -> None:
    engine.query("DROP DATABASE IF EXISTS midstream_restoring SYNC")
    tables = (
        "SELECT name FROM system.tables WHERE database = 'midstream' AND endsWith(engine, 'MergeTree') "
        "AND name NOT IN ('schema_migrations', 'retention_rows')"
    )
    for name in engine.query(tables, default_format="TSV").split():
        engine.query(f"TRUNCATE TABLE midstream.{name} SYNC")
    for path in engine.home.glob("re*"):  # registry and its key, and what a restore remembers
        path.unlink()


@pytest.fixture
def one(deploy: Deploy) -> Deployment:
    """A deployment with some events."""
    found = deploy("one")
    found.add_events(0, 1_000)
    return found
