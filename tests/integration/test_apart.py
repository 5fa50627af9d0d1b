"""Every process by itself, as a container runs it: from empty stores to an event that the api finds, and to the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet

from deploy.local.broker import format_storage
from deploy.local.home import open_home
from deploy.local.waiting import Flag, Waiter, http_get
from midstream.settings import Settings
from tests.integration.outside import make_body, make_event
from tests.support.container import ROOT, Contained, why_no_container
from tests.support.ports import free_ports, port_settings
from tests.support.postgres import postgres, why_no_postgres
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

ADDRESS = "127.0.0.2"
"""Where everything of ours answers: not where it does by default."""
_SERVING = ("collector", "api")
_WORKING = ("validate", "store", "devices", "jobs")
STOP_S = 25.0
"""Shorter than what compose and the chart give them."""


class Stores:
    """Kafka and the ClickHouse engine as local processes, and nothing of ours in them."""

    def __init__(self, home: Path) -> None:
        self._settings = Settings.model_validate({"home": home, "kafka": "", "clickhouse": "", **port_settings()})
        self._env = {
            "PATH": "/usr/bin:/bin",
            **{f"MIDSTREAM_{name.upper()}": str(getattr(self._settings, name)) for name in ("home", *port_settings())},
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def kafka(self) -> str:
        return self._settings.kafka_servers

    @property
    def clickhouse(self) -> str:
        return self._settings.clickhouse_dsn

    def start(self, name: str) -> None:
        home = open_home(self._settings.home)
        if name == "broker":
            format_storage(self._settings, home, print, Waiter(Flag()))
        with (home.logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", f"deploy.local.{name}"], cwd=ROOT, env=self._env, stdout=log, stderr=log
            )
        if name == "engine":
            port = self._settings.local_clickhouse_port
            wait_until("the engine answers", lambda: http_get("127.0.0.1", port, "/ping")[0] == 200, 60)

    def stop(self, name: str) -> None:
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def close(self) -> None:
        for name in list(self._running):
            self.stop(name)


class Deployment:
    """Our processes, each with a home of its own; what they share are stores, the registry and its key."""

    def __init__(self, folder: Path, stores: Stores, registry: str) -> None:
        self._folder = folder
        secrets = {
            "registry-key": Fernet.generate_key().decode(),
            "registry": registry,
            "clickhouse": stores.clickhouse,
        }
        for name, secret in secrets.items():
            (folder / name).write_text(secret)
            (folder / name).chmod(0o444)
        collector, api, *metrics = free_ports(6)
        self._ports = dict(
            zip(("collector", "api", "validate", "store", "devices", "jobs"), (collector, api, *metrics), strict=True)
        )
        self._settings = {
            "MIDSTREAM_KAFKA": stores.kafka,
            "MIDSTREAM_CLICKHOUSE_FILE": str(folder / "clickhouse"),
            "MIDSTREAM_REGISTRY_FILE": str(folder / "registry"),
            "MIDSTREAM_REGISTRY_KEY": str(folder / "registry-key"),
            "MIDSTREAM_HOST": ADDRESS,
            "MIDSTREAM_METRICS_HOST": ADDRESS,
            "MIDSTREAM_LOG_FORMAT": "json",
            **{
                f"MIDSTREAM_{stage.upper()}_METRICS_PORT": str(self._ports[stage])
                for stage in ("validate", "store", "devices", "jobs")
            },
        }
        self.running: dict[str, Contained] = {}

    def start(self, name: str, module: str, **settings: str) -> None:
        more = {"MIDSTREAM_PORT": str(self._ports[name])} if name in _SERVING else {}
        self.running[name] = Contained(
            self._folder / name,
            ["python", "-m", module],
            {**self._settings, **more, **settings},
            self._folder / f"{name}.log",
        )

    def run(self, *arguments: str) -> str:
        """Run `midstream` as a job does; return what it says."""
        log = self._folder / "midstream.log"
        log.unlink(missing_ok=True)
        done = Contained(self._folder / "job", ["python", "-m", "midstream.cli", *arguments], self._settings, log)
        code = done.wait(120)
        assert code == 0, log.read_text()
        return log.read_text().strip()

    def get(self, name: str, path: str) -> tuple[int, str]:
        """Status and body of an answer; 0 when there is none."""
        return http_get(ADDRESS, self._ports[name], path)

    def url(self, name: str) -> str:
        return f"http://{ADDRESS}:{self._ports[name]}"

    def wait(self, name: str, path: str = "/health", status: int = 200) -> None:
        def answers() -> bool:
            assert self.running[name].is_running(), self.running[name].log.read_text()[-4000:]
            return self.get(name, path)[0] == status

        wait_until(f"{name} answers {path} with {status}", answers, 60)

    def close(self) -> None:
        for process in self.running.values():
            process.kill()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    if reason := why_no_container() or why_no_postgres():
        pytest.skip(reason)
    found = Stores(tmp_path_factory.mktemp("apart") / "stores")
    try:
        found.start("broker")
        found.start("engine")
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def deployment(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with ExitStack() as stack:
        server = stack.enter_context(postgres())
        found = Deployment(tmp_path_factory.mktemp("deployment"), stores, f"{server}postgres")
        stack.callback(found.close)
        yield found


PROCESSES = {
    "collector": "ingest",
    "api": "serve",
    "validate": "processors.validate",
    "devices": "processors.devices",
    "jobs": "serve.jobs",
}


def test_migrate_makes_everything_and_does_it_again_without_harm(deployment: Deployment) -> None:
    said = deployment.run("migrate")
    assert "registry: up to date" in said
    assert "ClickHouse: 0001_events" in said
    assert "Kafka: topics are there" in said
    assert "ClickHouse: 0001_events" not in deployment.run("migrate")


def test_check_has_nothing_against_it(deployment: Deployment) -> None:
    checked = json.loads(deployment.run("check", "--json"))
    assert [one for one in checked if not one["ok"]] == []


def test_every_process_starts_by_itself(deployment: Deployment, stores: Stores) -> None:
    for name, module in PROCESSES.items():
        deployment.start(name, module)
    # A store that is away is waited for: whoever supervises would wait longer and longer between two starts.
    stores.stop("engine")
    deployment.start("store", "processors.store", MIDSTREAM_WORKER_ID="store-0")
    deployment.wait("store")
    wait_until("it waits", lambda: '"event": "worker.waits"' in deployment.running["store"].log.read_text(), 10)
    stores.start("engine")
    for name in PROCESSES:
        deployment.wait(name)
    deployment.wait("collector", "/accepting")
    deployment.wait("api", "/ready")
    assert deployment.running["store"].is_running()


def test_the_api_has_no_collector_and_the_collector_no_api(deployment: Deployment) -> None:
    assert "collector" not in json.loads(deployment.get("api", "/ready")[1])["parts"]
    assert deployment.get("api", "/accepting")[0] == 404
    assert deployment.get("collector", "/ready")[0] == 404


def test_an_event_goes_all_the_way(deployment: Deployment) -> None:
    app = deployment.run("token", "create", "app")
    operator = deployment.run("token", "create", "operator", "--role", "operator")
    event = make_event()
    with httpx.Client(timeout=20, trust_env=False) as http:
        sent = http.post(
            f"{deployment.url('collector')}/v1/telemetry",
            content=make_body([event]),
            headers={"authorization": f"Bearer {app}", "content-type": "application/json"},
        )
        assert sent.status_code == 200, sent.text

        def state() -> str:
            found = http.get(
                f"{deployment.url('api')}/v1/trace/{event['mid']}", headers={"authorization": f"Bearer {operator}"}
            )
            return str(found.json()) if found.status_code == 200 else ""

        wait_until("it is stored", lambda: "'stored'" in state(), 60)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("collector", "midstream_received_events_total"),
        ("api", "midstream_traces_total"),
        ("validate", "midstream_validated_events_total"),
        ("store", "midstream_stored_events_total"),
        ("devices", "midstream_stored_reports_total"),
        ("jobs", "midstream_sync_running"),
    ],
)
def test_metrics_can_be_scraped_at_the_address_that_is_set(deployment: Deployment, name: str, shown: str) -> None:
    status, page = deployment.get(name, "/metrics")
    assert status == 200
    assert f"\n{shown}" in page


def test_they_wrote_nowhere_but_into_their_homes(deployment: Deployment) -> None:
    """Anything else has failed with this error, and would be told."""
    for process in deployment.running.values():
        log = process.log.read_text()
        assert "Read-only file system" not in log
        assert "Traceback" not in log, log[-4000:]


def test_they_end_in_time_when_told_to_and_the_collector_leaves_nothing_open(deployment: Deployment) -> None:
    for name in ("collector", "api", "jobs", "validate", "devices", "store"):
        code = deployment.running[name].stop(STOP_S)
        assert code in (0, -signal.SIGTERM), f"{name}: {deployment.running[name].log.read_text()[-4000:]}"
    marks = json.loads(deployment.run("collectors", "list", "--json"))
    assert [mark["open"] for mark in marks] == [False, False]
    assert [mark["spooled_batches"] for mark in marks] == [0, 0]


def test_started_again_they_go_on_with_what_is_there(deployment: Deployment) -> None:
    deployment.start("collector", "ingest", MIDSTREAM_WEB_WORKERS="1")
    deployment.wait("collector", "/accepting")
    assert deployment.running["collector"].stop(STOP_S) in (0, -signal.SIGTERM)
