"""A whole pipeline of real processes on a home of its own, each process in the harness's hand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

from bench.proxy import Proxy
from deploy.local.broker import format_storage
from deploy.local.home import open_home
from deploy.local.orphans import RUN_HOME, find_processes
from deploy.local.stores import demo_token, prepare_stores
from deploy.local.waiting import Flag, Waiter, http_get
from midstream.clickhouse.client import ClickHouse, open_client
from midstream.settings import MIB, Settings
from tests.chaos import guard, spool
from tests.chaos.kafka import Kafka
from tests.chaos.keeper import Keeper
from tests.support.pipeline import ROOT
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

BROKER, ENGINE, DEVICES, JOBS, WEB = "broker", "engine", "devices", "jobs", "web"

SESSION_TIMEOUT_S = 6.0
"""How long Kafka waits for a silent worker here: the least that it takes."""

_MEMORY = Path("/dev/shm")
_MUCH_BYTES = 6 * 1024 * MIB
_READY_S = 60.0
_READY_ANSWERS = 8
_WORKERS_AT_MOST = 4
_CLICKHOUSE_ERROR = b"Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED)\n"

ERROR_ANSWER = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nX-ClickHouse-Exception-Code: 241\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_CLICKHOUSE_ERROR), _CLICKHOUSE_ERROR)
)


@dataclass(frozen=True)
class Shape:
    """What a pipeline consists of."""

    validate: int = 1
    store: int = 1
    partitions: int = 4
    proxied: frozenset[str] = frozenset()
    """Connections that lead through a proxy: ``engine`` (of the store workers), ``workers`` and ``collector`` (to
    Kafka)."""
    settings: Mapping[str, object] = field(default_factory=dict)
    standins: Mapping[str, str] = field(default_factory=dict)
    """What the stand-ins of ``validate`` or ``store`` do wrong, see :mod:`tests.chaos.standins`; none: the real
    module."""
    standin_env: Mapping[str, str] = field(default_factory=dict)
    """Environment of the stand-ins."""
    tmpfs: Mapping[str, int] = field(default_factory=dict)
    """Folders of the home that are small file systems of their own, with their bytes."""


class World:
    """The processes, from :meth:`start` to the end of the ``with``; then nothing is left of them.

    The environment of who runs the harness does not count, as far as settings of Midstream are concerned.
    """

    def __init__(self, shape: Shape, settings: Mapping[str, object] | None = None, *, keep: bool = False) -> None:
        """``settings`` count unless the shape has others."""
        self.shape = shape
        self.root = Path(tempfile.mkdtemp(prefix="mc-", dir=_place()))
        if keep:
            (self.root / guard.KEEP).touch()
        self.keeper: Keeper
        self.proxies: dict[str, Proxy] = {}
        self.token = ""
        self._stack = ExitStack()
        ports = iter(free_ports(11 + 2 * _WORKERS_AT_MOST + 4))
        self._metrics_ports = {
            (stage, number): next(ports) for stage in ("validate", "store") for number in range(_WORKERS_AT_MOST)
        }
        self.settings = Settings.model_validate(
            {
                "home": self.root,
                "kafka": "",
                "clickhouse": "",
                "registry": "",
                "port": next(ports),
                "local_kafka_port": next(ports),
                "local_kafka_controller_port": next(ports),
                "local_clickhouse_port": next(ports),
                "validate_metrics_port": self._metrics_ports["validate", 0],
                "store_metrics_port": self._metrics_ports["store", 0],
                "devices_metrics_port": next(ports),
                "jobs_metrics_port": next(ports),
                "partitions": shape.partitions,
                "kafka_session_timeout_ms": int(SESSION_TIMEOUT_S * 1000),
                **(settings or {}),
                **shape.settings,
            }
        )
        # Kafka's listener behind each proxy, and the proxy's own port.
        self._listeners = {name: (next(ports), next(ports)) for name in ("workers", "collector")}
        self._engine_proxy_port = next(ports)
        self.kafka = Kafka(self.settings)
        self._clickhouse: ClickHouse | None = None

    @property
    def logs(self) -> Path:
        """The folder of all processes' logs."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """The folder through which stand-ins and harness talk."""
        return self.root / "run"

    @property
    def clickhouse(self) -> ClickHouse:
        """A client of the engine, past all proxies."""
        if self._clickhouse is None:
            self._clickhouse = open_client(self.settings)
        return self._clickhouse

    def __enter__(self) -> World:
        self._stack.callback(self._clear)
        try:
            self._start_guard()
            self._mount()
            self.keeper = self._stack.enter_context(Keeper())
            for name in sorted(self.shape.proxied):
                listen, target = (
                    (self._engine_proxy_port, self.settings.local_clickhouse_port)
                    if name == ENGINE
                    else (self._listeners[name][1], self._listeners[name][0])
                )
                self.proxies[name] = self._stack.enter_context(Proxy(listen, target, error=ERROR_ANSWER))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._clickhouse is not None:
            self._clickhouse.close()
        self._stack.close()

    def start(self) -> None:
        """Start everything, and wait until a batch would reach ClickHouse."""
        home = open_home(self.root)
        self._know_processes()
        format_storage(self.settings, home, lambda _: None, Waiter(Flag()))
        self.keeper.start(BROKER, ENGINE)
        prepare_stores(self.settings, Flag(), lambda: None)
        self.token = demo_token(self.settings)
        self.keeper.start(*self.workers("validate"), *self.workers("store"), DEVICES, JOBS, WEB)
        self.wait_ready()

    def workers(self, stage: str) -> list[str]:
        """Return the names of a stage's workers that belong to the shape; a storm may start more."""
        return [f"{stage}-{number}" for number in range(getattr(self.shape, stage))]

    def spare_workers(self, stage: str) -> list[str]:
        """Return the names of workers that may be started beyond the shape."""
        return [f"{stage}-{number}" for number in range(getattr(self.shape, stage), _WORKERS_AT_MOST)]

    def wait_ready(self, timeout_s: float = _READY_S) -> None:
        """Wait until each process behind the base URL says that it is ready."""
        in_a_row = 0

        def ready() -> bool:
            nonlocal in_a_row
            in_a_row = in_a_row + 1 if http_get("127.0.0.1", self.settings.port, "/ready")[0] == 200 else 0
            return in_a_row >= _READY_ANSWERS

        wait_until("/ready is 200", ready, timeout_s)

    def wait_broker(self, timeout_s: float = 60.0) -> None:
        """Wait until Kafka answers."""
        wait_until("Kafka answers", lambda: self.ask(self.kafka.lag) is not None, timeout_s, 0.3)

    def wait_engine(self, timeout_s: float = 60.0) -> None:
        """Wait until the engine answers."""
        port = self.settings.local_clickhouse_port
        wait_until("the engine answers", lambda: http_get("127.0.0.1", port, "/ping")[0] == 200, timeout_s)

    @staticmethod
    def ask(question: object) -> object | None:
        """Ask Kafka something; None when it cannot be asked now."""
        from aiokafka.errors import KafkaError

        assert callable(question)
        try:
            answer: object = question()
        except (OSError, KafkaError, TimeoutError):
            return None
        return answer

    def kill_web_worker(self, choose: object) -> int:
        """SIGKILL one of the processes that serve the base URL; its parent starts another. Return its pid."""
        assert callable(choose)
        parent = self.keeper.pid(WEB)
        if not parent:
            return 0
        try:
            workers = [
                child for child in psutil.Process(parent).children() if "spawn_main" in " ".join(child.cmdline())
            ]
            if workers:
                victim: psutil.Process = choose(workers)
                victim.send_signal(signal.SIGKILL)
                return victim.pid
        except psutil.Error:
            pass  # they come and go
        return 0

    def client_env(self) -> dict[str, str]:
        """Return the environment of a command that works on this home."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIDSTREAM_", "CHAOS_"))}
        ours = {name: getattr(self.settings, name) for name in self.settings.model_fields_set}
        return kept | {f"MIDSTREAM_{name.upper()}": str(value) for name, value in ours.items() if value != ""}

    def spooled_bytes(self) -> int:
        """Return the size of what lies in the collectors' spools."""
        return spool.spooled_bytes(self.settings.spool_folder)

    # How

    def _know_processes(self) -> None:
        base = self.client_env() | {RUN_HOME: str(self.root), "PYTHONUNBUFFERED": "1"}

        def add(name: str, module: str, **env: str) -> None:
            self.keeper.add(name, module, base | env, self.logs / f"{name}.log")

        listeners = {name: ports for name, ports in self._listeners.items() if name in self.proxies}
        text = ",".join(f"{name.upper()}:{real}:{shown}" for name, (real, shown) in listeners.items())
        add(BROKER, "tests.chaos.standins.broker" if listeners else "deploy.local.broker", CHAOS_LISTENERS=text)
        add(ENGINE, "deploy.local.engine")
        add(DEVICES, "processors.devices")
        add(JOBS, "serve.jobs")
        add(WEB, "deploy.local.web", **self._kafka_env("collector"))
        for (stage, number), port in self._metrics_ports.items():
            standin = self.shape.standins.get(stage, "")
            env = self._kafka_env("workers") | {
                "MIDSTREAM_WORKER_ID": f"{stage}-{number}",
                f"MIDSTREAM_{stage.upper()}_METRICS_PORT": str(port),
                "CHAOS_DOES": standin,
                "CHAOS_FOLDER": str(self.run),
                **self.shape.standin_env,
            }
            if stage == "store" and ENGINE in self.proxies:
                env["MIDSTREAM_CLICKHOUSE"] = f"http://127.0.0.1:{self._engine_proxy_port}/midstream"
            module = f"tests.chaos.standins.{stage}" if standin else f"processors.{stage}"
            add(f"{stage}-{number}", module, **env)

    def _kafka_env(self, name: str) -> dict[str, str]:
        return {"MIDSTREAM_KAFKA": f"127.0.0.1:{self._listeners[name][1]}"} if name in self.proxies else {}

    def _mount(self) -> None:
        for folder, size in self.shape.tmpfs.items():
            path = self.root / folder
            path.mkdir(parents=True, mode=0o700)
            command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path)]
            subprocess.run(command, check=True, timeout=20, capture_output=True)

    def _start_guard(self) -> None:
        """Start what cleans up should the harness be killed; it ends when this process closes the pipe."""
        watcher = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.guard", str(self.root)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

        def dismiss() -> None:
            assert watcher.stdin is not None
            watcher.stdin.close()
            watcher.wait(30)

        self._stack.callback(dismiss)

    def _clear(self) -> None:
        """The last step: nothing of this world may be left."""
        guard.clear(self.root)
        deadline = time.monotonic() + 10
        while left := find_processes_of(self.root):
            assert time.monotonic() < deadline, f"processes are left: {left}"
            time.sleep(0.1)
        if not (self.root / guard.KEEP).exists():
            assert not self.root.exists(), f"{self.root} is left"


def _place() -> Path | None:
    """Return where homes are made: in memory if there is much of it, for what is killed here is processes, not the
    machine, and an insert into a file system on disk costs several times as much; None: where temporary files go."""
    if "TMPDIR" in os.environ or not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _MUCH_BYTES:
        return None
    return _MEMORY


def find_processes_of(root: Path) -> list[psutil.Process]:
    """Return the living processes that were started for a home."""
    from deploy.local.home import Home

    return find_processes(Home(root))


def can_mount() -> bool:
    """Whether this user can mount a small file system here."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    probe = Path(tempfile.mkdtemp(prefix="mc-"))
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(probe)], check=False, timeout=20, capture_output=True
        )
        if done.returncode == 0:
            subprocess.run(["umount", str(probe)], check=True, timeout=20, capture_output=True)
        return done.returncode == 0
    finally:
        shutil.rmtree(probe, ignore_errors=True)
