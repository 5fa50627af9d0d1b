"""Settings of connections, the clients made by them, and the page about them."""

from __future__ import annotations

import ast
import asyncio
import re
import ssl
from pathlib import Path

import pytest
import trustme
from aiokafka.errors import KafkaError
from cryptography.hazmat.primitives import serialization

from midstream import topics
from midstream.faults import MEANINGS, Fault, tls_fault
from midstream.kafka import access
from midstream.kafka.connection import connection
from midstream.kafka.dimension_publisher import DimensionPublisher, PublishError
from midstream.records import topics_with_schemas
from midstream.settings import Settings, SettingsError, load_settings
from midstream.settings.tls import client_context
from tests.unit.test_layout import PACKAGES, ROOT

SECRET = "hush-hush"
MAY_NAME_SERVERS = {"midstream/kafka/connection.py", "midstream/kafka/access.py"}
CLIENTS = {"AIOKafkaProducer", "AIOKafkaConsumer", "AIOKafkaAdminClient", "AIOKafkaClient"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("MIDSTREAM_KAFKA", "kafka.example:9093")
    return monkeypatch


def problems(environment: pytest.MonkeyPatch, **changes: object) -> str:
    for name, value in changes.items():
        environment.setenv(f"MIDSTREAM_{name.upper()}", str(value))
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    ca = trustme.CA()
    mine, other = ca.issue_cert("client.example"), ca.issue_cert("other.example")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, issued in (("mine", mine), ("other", other)):
        (tmp_path / f"{name}.pem").write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
        (tmp_path / f"{name}.key").touch(0o600)
        (tmp_path / f"{name}.key").write_bytes(issued.private_key_pem.bytes())
    key = serialization.load_pem_private_key(mine.private_key_pem.bytes(), None)
    form, how = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"passphrase")
    (tmp_path / "locked.key").touch(0o600)
    (tmp_path / "locked.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, how))
    (tmp_path / "text.pem").write_text("no certificate")
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kafka_security": "sasl_ssl"}, ["MIDSTREAM_KAFKA_USER", "MIDSTREAM_KAFKA_PASSWORD"]),
        ({"kafka_security": "sasl_ssl", "kafka_user": "u"}, ["MIDSTREAM_KAFKA_PASSWORD"]),
        ({"kafka_password": SECRET}, ["MIDSTREAM_KAFKA_PASSWORD", "MIDSTREAM_KAFKA_SECURITY"]),
        ({"kafka_security": "ssl", "kafka_user": "u"}, ["MIDSTREAM_KAFKA_USER"]),
        ({"kafka_ca": "ca.pem"}, ["MIDSTREAM_KAFKA_CA", "MIDSTREAM_KAFKA_SECURITY"]),
        ({"kafka_security": "ssl", "kafka_key": "k"}, ["MIDSTREAM_KAFKA_CERTIFICATE", "MIDSTREAM_KAFKA_KEY"]),
        (
            {"kafka_security": "ssl", "kafka_ca": "/not/there.pem"},
            ["MIDSTREAM_KAFKA_CA", "/not/there.pem", "No such file"],
        ),
        ({"kafka": "broker:port"}, ["MIDSTREAM_KAFKA", "host:port"]),
        ({"kafka": "broker:9092,"}, ["MIDSTREAM_KAFKA", "host:port"]),
        ({"kafka": f"kafka://u:{SECRET}@broker:9092"}, ["MIDSTREAM_KAFKA", "host:port"]),
        ({"kafka": "", "kafka_security": "ssl"}, ["MIDSTREAM_KAFKA_SECURITY", "MIDSTREAM_KAFKA"]),
        (
            {"clickhouse": f"http://u:{SECRET}@h:8123/d", "clickhouse_ca": "ca.pem"},
            ["MIDSTREAM_CLICKHOUSE_CA", "https://"],
        ),
        ({"clickhouse": "https://h:8443/d", "clickhouse_ca": "/not/there.pem"}, ["MIDSTREAM_CLICKHOUSE_CA"]),
        ({"kafka_security": "tls", "kafka_password": SECRET}, ["MIDSTREAM_KAFKA_SECURITY", "sasl_ssl"]),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name_and_without_secrets(
    environment: pytest.MonkeyPatch, changes: dict[str, object], said: list[str]
) -> None:
    message = problems(environment, **changes)
    assert all(word in message for word in said), message
    assert SECRET not in message


@pytest.mark.parametrize("servers", ["a:9092, b:9093", "broker", "[::1]:9092", "my_host.example:1"])
def test_servers_of_kafka_are_named_as_its_clients_take_them(environment: pytest.MonkeyPatch, servers: str) -> None:
    environment.setenv("MIDSTREAM_KAFKA", servers)
    assert load_settings().kafka == servers


def test_the_password_is_nowhere_but_where_it_is_asked_for(environment: pytest.MonkeyPatch) -> None:
    for name, value in {"SECURITY": "sasl_plaintext", "USER": "u", "PASSWORD": SECRET}.items():
        environment.setenv(f"MIDSTREAM_KAFKA_{name}", value)
    environment.setenv("MIDSTREAM_CLICKHOUSE", f"http://u:{SECRET}@h:8123/d")
    settings = load_settings()
    assert SECRET not in f"{settings!r} {settings}"
    arguments = connection(settings)
    assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("u", SECRET)
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert arguments["security_protocol"] == "SASL_PLAINTEXT"


def test_plaintext_shows_no_login() -> None:
    arguments = connection(Settings.model_validate({"kafka": "a:1,b:2"}))
    assert arguments == {"bootstrap_servers": "a:1,b:2", "security_protocol": "PLAINTEXT"}


def test_certificates_are_checked_with_the_host_name(files: Path) -> None:
    for ca in (None, files / "ca.pem"):
        context = client_context("MIDSTREAM_KAFKA", ca, files / "mine.pem", files / "mine.key")
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert len(client_context("MIDSTREAM_KAFKA", files / "ca.pem").get_ca_certs()) == 1, "and no others are trusted"


@pytest.mark.parametrize(
    ("ca", "certificate", "key", "said"),
    [
        ("text.pem", "mine.pem", "mine.key", "MIDSTREAM_KAFKA_CA: .* no certificate"),
        ("ca.pem", "text.pem", "mine.key", "MIDSTREAM_KAFKA_CERTIFICATE, MIDSTREAM_KAFKA_KEY"),
        ("ca.pem", "mine.pem", "other.key", "MIDSTREAM_KAFKA_CERTIFICATE, MIDSTREAM_KAFKA_KEY"),
        ("ca.pem", "mine.pem", "locked.key", "MIDSTREAM_KAFKA_KEY: .* passphrase"),
        ("ca.pem", "mine.pem", "gone.key", "MIDSTREAM_KAFKA_KEY: .* No such file"),
    ],
)
def test_files_that_cannot_be_used_are_named(files: Path, ca: str, certificate: str, key: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        client_context("MIDSTREAM_KAFKA", files / ca, files / certificate, files / key)


def test_a_key_that_others_can_read_is_refused(files: Path) -> None:
    (files / "mine.key").chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        client_context("MIDSTREAM_KAFKA", files / "ca.pem", files / "mine.pem", files / "mine.key")
    (files / "mine.key").chmod(0o640)  # of a secret's group, as containers have it
    client_context("MIDSTREAM_KAFKA", files / "ca.pem", files / "mine.pem", files / "mine.key")


def test_every_client_of_kafka_is_made_by_the_settings() -> None:
    """A client made without :func:`connection` would try a secured Kafka in the clear."""
    made = 0
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text("utf-8")
            where = path.relative_to(ROOT).as_posix()
            assert "bootstrap_servers" not in text or where in {
                "midstream/kafka/connection.py",
                "midstream/kafka/access.py",
            }
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLIENTS:
                    made += 1
                    unpacked = [ast.unparse(one.value) for one in node.keywords if one.arg is None]
                    by_settings = any(one.startswith("connection(") for one in unpacked)
                    # Two clients of one place share a dictionary, which is made by connection() there.
                    assert by_settings or (unpacked == ["common"] and "**connection(" in text), f"{where}:{node.lineno}"
    assert made > 20


def test_every_fault_is_documented_with_what_to_do() -> None:
    page = (ROOT / "docs" / "connections.md").read_text("utf-8")
    assert re.findall(r"^\| `([A-Z_]+)` \| .+ \| .+ \|$", page, re.MULTILINE) == [fault.value for fault in Fault]
    assert set(MEANINGS) == set(Fault)


def test_rights_in_kafka_name_every_topic_and_the_schemas_of_what_is_written_and_read() -> None:
    page = (ROOT / "docs" / "connections.md").read_text("utf-8")
    found: dict[str, dict[str, set[str]]] = {}
    for process, name, operations in re.findall(r"^\| (\w+) \| Topic \| (\S+) \| ([A-Z, ]+) \|$", page, re.MULTILINE):
        found.setdefault(process, {})[name] = set(operations.split(", "))
    assert found.keys() == {"collector", "validate", "store", "devices", "jobs", "api"}
    assert {name for rights in found.values() for name in rights} == {topic.name for topic in topics.ALL}
    with_schemas = set(topics_with_schemas())
    for process, rights in found.items():
        for operation in ("READ", "WRITE"):
            needs = any(operation in of for name, of in rights.items() if name in with_schemas)
            assert not needs or operation in rights.get("schemas", set()), (process, operation)


def test_an_error_of_something_else_is_no_fault_of_tls() -> None:
    assert tls_fault(OSError(111, "Connection refused")) is None
    error = RuntimeError("outer")
    error.__cause__ = ValueError(ConnectionResetError())
    error.__context__ = error  # a circle must not be walked for ever
    assert tls_fault(error) is None


def test_a_certificate_that_is_not_valid_yet_counts_as_expired() -> None:
    error = ssl.SSLCertVerificationError(1, "not yet valid")
    error.verify_code = 9
    assert tls_fault(RuntimeError(error)) is Fault.CERTIFICATE_EXPIRED


class Servers:
    """Bootstrap servers, each with what it says when asked; asked once more, a test has gone on for too long."""

    def __init__(self, *rounds: list[Fault]) -> None:
        self._rounds = iter(rounds)

    async def look(self, _settings: Settings, _timeout_s: float = 0) -> list[access.Refusal]:
        return [access.Refusal(f"server{number}", fault, "said") for number, fault in enumerate(next(self._rounds))]


TWO_SERVERS = Settings.model_validate({"kafka": "a:1,b:2", "kafka_security": "ssl"})


@pytest.mark.parametrize(
    ("faults", "is_refused"),
    [
        ([], False),
        ([Fault.LOGIN_REFUSED], False),  # the other one lets us in
        ([Fault.UNREACHABLE, Fault.CLOSED], False),  # Kafka may come later
        ([Fault.UNREACHABLE, Fault.LOGIN_REFUSED], True),
        ([Fault.UNKNOWN_CA, Fault.UNKNOWN_CA], True),
    ],
)
async def test_only_a_refusal_that_waiting_does_not_change_ends_a_process(
    monkeypatch: pytest.MonkeyPatch, faults: list[Fault], is_refused: bool
) -> None:
    monkeypatch.setattr(access, "look", Servers(faults).look)
    if not is_refused:
        await access.require_access(TWO_SERVERS)
        return
    with pytest.raises(access.KafkaRefusedError) as caught:
        await access.require_access(TWO_SERVERS)
    assert caught.value.refusal.fault is faults[-1]


async def test_a_worker_ends_once_kafka_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = [Fault.LOGIN_REFUSED, Fault.LOGIN_REFUSED]
    monkeypatch.setattr(access, "look", Servers([], [Fault.UNREACHABLE, Fault.UNREACHABLE], refused).look)
    monkeypatch.setattr(access, "_WATCH_S", 0.001)
    with pytest.raises(access.KafkaRefusedError, match="LOGIN_REFUSED"):
        await asyncio.wait_for(access.watch_access(TWO_SERVERS), 10)


async def test_files_that_are_being_renewed_end_no_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = TWO_SERVERS.model_copy(update={"kafka_ca": tmp_path / "ca.pem"})
    monkeypatch.setattr(access, "_WATCH_S", 0.001)
    watching = asyncio.create_task(access.watch_access(settings))
    await asyncio.sleep(0.1)
    assert not watching.done()
    refused = [Fault.LOGIN_REFUSED, Fault.LOGIN_REFUSED]
    monkeypatch.setattr(access, "look", Servers(refused).look)
    with pytest.raises(access.KafkaRefusedError):
        await asyncio.wait_for(watching, 10)


async def test_who_makes_a_client_meanwhile_finds_kafka_away(tmp_path: Path) -> None:
    settings = TWO_SERVERS.model_copy(update={"kafka_ca": tmp_path / "ca.pem"})
    assert not await asyncio.to_thread(access.require_access_at_start, settings)
    with pytest.raises(KafkaError, match=r"MIDSTREAM_KAFKA_CA.*No such file"):
        connection(settings)
    with pytest.raises(PublishError):
        await DimensionPublisher(settings).connect()


async def test_a_kafka_that_refuses_nobody_is_not_watched() -> None:
    await asyncio.wait_for(access.watch_access(Settings.model_validate({"kafka": "a:1"})), 1)
