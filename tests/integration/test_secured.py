"""Kafka with TLS, users and rights: the whole pipeline over it, and what is said when it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deploy.local.home import open_home
from deploy.local.waiting import http_get
from midstream import topics
from midstream.check.clickhouse import check_clickhouse
from midstream.check.result import Level
from midstream.clickhouse.client import ClickHouseError, open_client
from midstream.devices.record import encode_report
from midstream.devices.report import read_report
from midstream.faults import Fault
from midstream.kafka.access import look
from midstream.kafka.admin import ensure_topics
from midstream.kafka.producer import make_producer
from midstream.kafka.schemas import SchemaReader
from midstream.settings import Settings
from tests.integration.outside import Outside, make_event, run_cli, unique
from tests.integration.test_assignments import Platform
from tests.support.pipeline import ROOT, Pipeline
from tests.support.ports import free_ports, port_settings
from tests.support.secure_kafka import PASSWORD, PLAIN_PASSWORD, PLAIN_USER, Right, SecureBroker
from tests.support.tls_proxy import TlsProxy
from tests.support.waiting import wait_until

PAGE = (ROOT / "docs" / "connections.md").read_text("utf-8")
WRONG = "not-the-password"
PLAIN = {"kafka_sasl_mechanism": "PLAIN", "kafka_user": PLAIN_USER, "kafka_password": PLAIN_PASSWORD}


def documented_rights() -> set[Right]:
    """Return the rights of the page's table, of all processes together."""
    found = set()
    for kind, name, operations in re.findall(r"^\| [^|]+ \| (Topic|Group) \| ([^|]+) \| ([A-Z_, ]+) \|$", PAGE, re.M):
        names = [topic.name for topic in topics.ALL] if name == "all of them" else [name]
        found |= {Right(kind, one, operation) for one in names for operation in operations.split(", ")}
    return found


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    made = SecureBroker(tmp_path_factory.mktemp("secure") / "kafka")
    try:
        made.start()
        asyncio.run(ensure_topics(made.own_settings))
        asyncio.run(made.allow(documented_rights()))
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def proxy(broker: SecureBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsProxy]:
    """TLS in front of a ClickHouse engine of its own, by the certificates that the broker has too."""
    [port] = free_ports(1)
    home = open_home(tmp_path_factory.mktemp("engine") / "home")
    env = {**os.environ, "MIDSTREAM_HOME": str(home.root), "MIDSTREAM_LOCAL_CLICKHOUSE_PORT": str(port)}
    with (home.logs / "engine.log").open("wb") as log:
        engine = subprocess.Popen(
            [sys.executable, "-m", "deploy.local.engine"], cwd=ROOT, env=env, stdout=log, stderr=log
        )
    try:
        wait_until("the engine answers", lambda: http_get("127.0.0.1", port, "/ping")[0] == 200, 60)
        names = ("server", "expired", "elsewhere")
        with TlsProxy(port, {name: broker.files.folder / f"{name}.pem" for name in names}) as running:
            yield running
    finally:
        engine.terminate()
        engine.wait(30)


def clickhouse(proxy: TlsProxy, name: str = "server") -> str:
    return f"https://127.0.0.1:{proxy.ports[name]}/midstream"


@pytest.fixture(scope="module")
def secured(broker: SecureBroker, proxy: TlsProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A pipeline that reaches Kafka by TLS and SCRAM, and ClickHouse by https."""
    stores = {**broker.settings("scram"), "clickhouse": clickhouse(proxy), "clickhouse_ca": broker.files.ca}
    with Pipeline(tmp_path_factory.mktemp("secured") / "home", **stores) as pipeline:
        clients = Outside(pipeline)
        yield clients
        clients.close()


def settings_for(broker: SecureBroker, listener: str, **changes: object) -> Settings:
    return Settings.model_validate(broker.settings(listener, **changes))


@pytest.mark.parametrize(
    ("listener", "changes"),
    [
        ("scram", {}),
        ("scram", {"kafka_sasl_mechanism": "SCRAM-SHA-256"}),
        ("scram", PLAIN),
        ("mutual", {}),
        ("clear", {}),
    ],
)
def test_who_shows_what_is_wanted_is_let_in(broker: SecureBroker, listener: str, changes: dict[str, object]) -> None:
    assert asyncio.run(look(settings_for(broker, listener, **changes))) == []


@pytest.mark.parametrize(
    ("listener", "changes", "fault"),
    [
        ("scram", {"kafka_password": WRONG}, Fault.LOGIN_REFUSED),
        ("scram", {"kafka_user": "nobody"}, Fault.LOGIN_REFUSED),
        ("scram", PLAIN | {"kafka_password": WRONG}, Fault.LOGIN_REFUSED),
        ("scram", {"kafka_ca": None}, Fault.UNKNOWN_CA),
        ("scram", {"kafka_ca": "other-ca.pem"}, Fault.UNKNOWN_CA),
        ("scram", {"kafka_security": "plaintext"}, Fault.CLOSED),
        ("clear", {"kafka_security": "sasl_ssl"}, Fault.CLOSED),
        ("expired", {}, Fault.CERTIFICATE_EXPIRED),
        ("elsewhere", {}, Fault.WRONG_HOST_NAME),
        ("mutual", {"kafka_certificate": None, "kafka_key": None}, Fault.OUR_CERTIFICATE_REFUSED),
    ],
)
def test_who_is_refused_is_told_why(
    broker: SecureBroker, listener: str, changes: dict[str, object], fault: Fault
) -> None:
    if changes.get("kafka_ca"):
        changes = {"kafka_ca": broker.files.folder / str(changes["kafka_ca"])}
    [refusal] = asyncio.run(look(settings_for(broker, listener, **changes)))
    assert refusal.fault is fault
    assert WRONG not in str(refusal)


def test_the_whole_pipeline_works_with_the_documented_rights_and_no_others(
    broker: SecureBroker, secured: Outside
) -> None:
    events = [make_event() for _ in range(20)]
    batch = secured.send([*events, {"eid": "NO_SUCH_EVENT"}])
    counted = secured.settle([batch])
    assert (counted.received, counted.stored, counted.rejected) == (21, 20, 1)
    device = unique("device")
    report = read_report(device, {"status": "online"}, time.time_ns() // 1_000, unique("report"))
    asyncio.run(send(settings_for(broker, "scram"), topics.DEVICE.name, device.encode(), encode_report(report)))
    state = "SELECT count() FROM device_state WHERE device_id = {device:String}"
    wait_until("the device's state is there", lambda: secured.value(state, device=device))
    put = secured.operate("PUT", f"/v1/dimensions/user/{unique('user')}", {"name": "x"})
    assert put.status_code == 200, put.text
    made = Platform(secured).send("POST", unique("asset"), {"telemetry": {"steps": []}})
    assert made.status_code == 201, made.text
    assert "stored" in secured.cli("trace", events[0]["mid"])
    secured.wait_accounted()
    secured.cli("audit")
    assert secured.http.get("/ready").status_code == 200
    nobodys = b"\xc3\x01" + bytes(8)  # the head of a value of another version, whose schema is looked for
    assert SchemaReader(settings_for(broker, "scram")).find(topics.VALID.name, nobodys) is None

    def unused() -> set[Right]:
        return documented_rights() - broker.judged("Allowed")

    def checked() -> bool:
        secured.cli("check")
        return not unused()

    with suppress(AssertionError):
        wait_until("every documented right is used", checked, 30, interval_s=1)
    assert unused() == set()
    assert broker.judged("Denied") == set()


async def send(settings: Settings, topic: str, key: bytes, value: bytes) -> None:
    producer = make_producer(settings, idempotent=True)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, key)
    finally:
        await producer.stop()


def test_check_finds_a_secured_deployment_well(secured: Outside) -> None:
    found = json.loads(secured.cli("check", "--json"))
    by_name = {one["check"]: one for one in found}
    assert {one["check"] for one in found if not one["ok"]} == set()
    assert {"kafka", "kafka.topics", "kafka.clock", "kafka.certificate", "clickhouse", "clickhouse.tables"} <= set(
        by_name
    )
    assert by_name["kafka"]["message"].endswith("sasl_ssl")
    assert by_name["kafka.certificate"]["level"] == "ok"


@pytest.mark.parametrize(
    ("changes", "fault", "change"),
    [
        ({"MIDSTREAM_KAFKA_PASSWORD": WRONG}, Fault.LOGIN_REFUSED, "MIDSTREAM_KAFKA_PASSWORD"),
        ({"MIDSTREAM_KAFKA_CA": "other-ca.pem"}, Fault.UNKNOWN_CA, "MIDSTREAM_KAFKA_CA"),
    ],
)
def test_check_says_why_kafka_refuses_and_what_to_change(
    broker: SecureBroker, secured: Outside, changes: dict[str, str], fault: Fault, change: str
) -> None:
    if "MIDSTREAM_KAFKA_CA" in changes:
        changes = {"MIDSTREAM_KAFKA_CA": str(broker.files.other_ca)}
    done = run_cli(secured.pipeline, "check", "--json", **changes)
    assert done.returncode == 1
    kafka = next(one for one in json.loads(done.stdout) if one["check"] == "kafka")
    assert not kafka["ok"]
    assert fault in kafka["message"]
    assert change in kafka["change"]
    assert WRONG not in done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("certificate", "ca", "fault"),
    [
        ("server", "other-ca.pem", Fault.UNKNOWN_CA),
        ("server", None, Fault.UNKNOWN_CA),
        ("expired", "ca.pem", Fault.CERTIFICATE_EXPIRED),
        ("elsewhere", "ca.pem", Fault.WRONG_HOST_NAME),
    ],
)
def test_a_clickhouse_whose_certificate_is_wrong_is_not_used(
    broker: SecureBroker, proxy: TlsProxy, certificate: str, ca: str | None, fault: Fault
) -> None:
    file = broker.files.folder / ca if ca else None
    settings = Settings.model_validate({"clickhouse": clickhouse(proxy, certificate), "clickhouse_ca": file})
    with pytest.raises(ClickHouseError, match=fault) as caught:
        open_client(settings, timeout_ms=5_000)
    assert caught.value.fault is fault
    [said] = check_clickhouse(settings, 5)
    assert (said.level, fault in said.message, bool(said.change)) == (Level.FAIL, True, True)


def test_https_to_a_port_without_tls_is_said_so(secured: Outside) -> None:
    port = secured.pipeline.settings["port"]  # the base URL speaks HTTP
    with pytest.raises(ClickHouseError) as caught:
        open_client(Settings.model_validate({"clickhouse": f"https://127.0.0.1:{port}/midstream"}), timeout_ms=5_000)
    assert caught.value.fault is Fault.NOT_TLS


def test_processes_that_kafka_refuses_say_why_and_end(broker: SecureBroker, tmp_path: Path) -> None:
    settings = {
        **port_settings(),
        **broker.settings("scram", kafka_password=WRONG),
        "home": tmp_path,
        "log_format": "json",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIDSTREAM_")}
    env = kept | {f"MIDSTREAM_{name.upper()}": str(value) for name, value in settings.items()}
    codes = {"ingest": 1, "processors.devices": 78, "serve.jobs": 78, "deploy.local.web": 1}
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    ports = dict(zip(codes, map(str, free_ports(len(codes))), strict=True))
    running = {
        module: subprocess.Popen(
            [sys.executable, "-m", module], cwd=ROOT, env=env | {"MIDSTREAM_PORT": ports[module]}, **pipe
        )
        for module in codes
    }
    try:
        for module, process in running.items():
            said, _ = process.communicate(timeout=90)
            assert process.returncode == codes[module], said
            lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
            assert [one["code"] for one in lines if one["event"] == "kafka.refused"] == ["LOGIN_REFUSED"], said
            assert WRONG not in said
    finally:
        for process in running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait(10)


def test_no_log_of_the_pipeline_holds_the_password(secured: Outside) -> None:
    for log in secured.pipeline.home.logs.iterdir():
        assert PASSWORD not in log.read_text(errors="replace"), log
    assert PASSWORD not in secured.pipeline.home.ready.read_text()
