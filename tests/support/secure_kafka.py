"""A real Kafka whose listeners want TLS, users and certificates, all made when it starts."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import trustme
from aiokafka.conn import create_conn
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography.hazmat.primitives import serialization

from deploy.local.broker import java_command, server_properties
from deploy.local.jars import KAFKA
from deploy.local.prerequisites import find_java
from midstream.settings import Settings
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

USER, PASSWORD = "midstream", "pass=%#word;"
"""With characters that mean something in files of settings."""

PLAIN_USER, PLAIN_PASSWORD = "plain", "plain-password"

_LISTENERS = ("scram", "mutual", "expired", "elsewhere", "clear")
_CLUSTER_ID = "TWlkc3RyZWFtVGVzdHMwMQ"
_LOG = """
# Which of a user's rights were used, and which were missing.
logger.authorizer.name = kafka.authorizer.logger
logger.authorizer.level = debug
"""
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_PLAIN = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{PLAIN_USER}="{PLAIN_PASSWORD}";'


@dataclass(frozen=True)
class Files:
    """Certificates and keys, as PEM files."""

    folder: Path
    ca: Path
    other_ca: Path
    certificate: Path
    key: Path
    """Of a client whose certificate names it ``midstream-client``."""


def write_files(folder: Path) -> Files:
    """Make CAs, servers' and a client's certificates. A server's file holds key and certificates, as Kafka has it."""
    folder.mkdir(parents=True)
    ca, other = trustme.CA(), trustme.CA()
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    long_ago = yesterday - datetime.timedelta(days=30)
    for name, issued in {
        "server": ca.issue_cert("127.0.0.1", "localhost"),
        "expired": ca.issue_cert("127.0.0.1", not_before=long_ago, not_after=yesterday),
        "elsewhere": ca.issue_cert("kafka.elsewhere.example"),
    }.items():
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (folder / f"{name}.pem").write_bytes(_pkcs8(issued.private_key_pem.bytes()) + chain)
    client = ca.issue_cert("client.example", common_name="midstream-client")
    files = Files(folder, folder / "ca.pem", folder / "other-ca.pem", folder / "client.pem", folder / "client.key")
    ca.cert_pem.write_to_path(files.ca)
    other.cert_pem.write_to_path(files.other_ca)
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in client.cert_chain_pems))
    files.key.touch(0o600)
    files.key.write_bytes(client.private_key_pem.bytes())
    return files


def _pkcs8(pem: bytes) -> bytes:
    key = serialization.load_pem_private_key(pem, None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Right(NamedTuple):
    """One operation on one resource of Kafka, in the words of its authorizer."""

    kind: str
    name: str
    operation: str


_RESOURCES = {"Topic": 2, "Group": 3, "Cluster": 4}
_OPERATIONS = {
    "READ": 3,
    "WRITE": 4,
    "CREATE": 5,
    "ALTER": 7,
    "DESCRIBE": 8,
    "DESCRIBE_CONFIGS": 10,
    "ALTER_CONFIGS": 11,
}
_LITERAL = 3
_ALLOW = 3
_AUTHORIZED = re.compile(
    r"Principal = User:(\S+) is (Allowed|Denied) operation = (\w+) "
    r"from host = \S+ on resource = (\w+):LITERAL:(\S+) for"
)


class SecureBroker:
    """One Kafka broker on free ports and a folder of its own, which nobody reaches without being let in.

    Listeners: ``scram`` (SASL_SSL: SCRAM and PLAIN), ``mutual`` (SSL with client certificates), ``expired`` and
    ``elsewhere`` (SSL with an expired certificate, and one of another host), ``clear`` (SASL_PLAINTEXT), and one in
    the clear for itself, where every ANONYMOUS is a super user.
    """

    def __init__(self, folder: Path) -> None:
        own, controller, *ports = free_ports(2 + len(_LISTENERS))
        self.files = write_files(folder / "certificates")
        self._folder = folder
        self._log = folder / "kafka.log"
        self._own = own
        self._ports = dict(zip(_LISTENERS, ports, strict=True))
        self._base = Settings.model_validate(
            {"home": folder, "kafka": "", "local_kafka_port": own, "local_kafka_controller_port": controller}
        )
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self, listener: str = "scram", **changes: object) -> dict[str, object]:
        """Return the settings by which one gets in at a listener, and the changes."""
        login = {"kafka_user": USER, "kafka_password": PASSWORD}
        certificate = {"kafka_certificate": self.files.certificate, "kafka_key": self.files.key}
        security: dict[str, dict[str, object]] = {
            "scram": {"kafka_security": "sasl_ssl", "kafka_ca": self.files.ca, **login},
            "mutual": {"kafka_security": "ssl", "kafka_ca": self.files.ca, **certificate},
            "expired": {"kafka_security": "ssl", "kafka_ca": self.files.ca},
            "elsewhere": {"kafka_security": "ssl", "kafka_ca": self.files.ca},
            "clear": {"kafka_security": "sasl_plaintext", **login},
        }
        return {"kafka": f"127.0.0.1:{self._ports[listener]}", **security[listener], **changes}

    @property
    def own_settings(self) -> Settings:
        """Settings of whom nothing is refused."""
        return Settings.model_validate({"kafka": f"127.0.0.1:{self._own}"})

    def start(self) -> None:
        """Start it, formatted first, and wait until it listens."""
        (self._folder / "run").mkdir()
        config = self._folder / "run" / "kafka.properties"
        config.write_text(self._properties())
        java = find_java(os.environ)
        assert java is not None
        users = [f"{mechanism}=[name={USER},password={PASSWORD}]" for mechanism in _MECHANISMS]
        subprocess.run(
            [*java_command(java), "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(config)]
            + [part for user in users for part in ("--add-scram", user)],
            cwd=self._folder,
            check=True,
            capture_output=True,
            timeout=60,
        )
        self._spawn(config, java)

    def _spawn(self, config: Path, java: str) -> None:
        log = self._log
        logging = self._folder / "run" / "log4j2.properties"
        logging.write_text((KAFKA / "log4j2.properties").read_text() + _LOG)
        [program, *options] = java_command(java)
        command = [program, *options, f"-Dlog4j2.configurationFile={logging.as_uri()}", "kafka.Kafka", str(config)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=output, stderr=output)

        def listens() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, log.read_text(errors="replace")[-4000:]
            return "Kafka Server started" in log.read_text(errors="replace")

        wait_until("Kafka listens", listens, 60)

    async def allow(self, rights: Collection[Right], principal: str = f"User:{USER}") -> None:
        """Give a user rights, beside those that it has."""
        opened = await create_conn("127.0.0.1", self._own, client_id="tests")
        try:
            for right in rights:
                answer = await opened.send(
                    CreateAclsRequest(
                        _RESOURCES[right.kind],
                        right.name,
                        _LITERAL,
                        principal,
                        "*",
                        _OPERATIONS[right.operation],
                        _ALLOW,
                    )
                )
                assert [response[0] for response in answer.creation_responses] == [0], right
        finally:
            await opened.close()

    def judged(self, verdict: Literal["Allowed", "Denied"], user: str = USER) -> set[Right]:
        """Return what a user did with a right, or was denied."""
        return {
            Right(kind, name, operation)
            for principal, how, operation, kind, name in _AUTHORIZED.findall(self._log.read_text(errors="replace"))
            if principal == user and how == verdict
        }

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def _properties(self) -> str:
        server = self.files.folder / "server.pem"
        names = {name.upper(): f"{name.upper()}://127.0.0.1:{port}" for name, port in self._ports.items()}
        protocols = {"SCRAM": "SASL_SSL", "CLEAR": "SASL_PLAINTEXT"}
        lines = dict(line.split("=", 1) for line in server_properties(self._base, "data").splitlines())
        lines["listeners"] += "".join(f",{address}" for address in names.values())
        lines["advertised.listeners"] += "".join(f",{address}" for address in names.values())
        lines["listener.security.protocol.map"] += "".join(f",{name}:{protocols.get(name, 'SSL')}" for name in names)
        for name in self._ports:
            at = f"listener.name.{name}"
            if name in ("scram", "clear"):
                lines[f"{at}.sasl.enabled.mechanisms"] = ",".join([*_MECHANISMS, "PLAIN"])
                for mechanism in _MECHANISMS:
                    lines[f"{at}.{mechanism.lower()}.sasl.jaas.config"] = _SCRAM
                lines[f"{at}.plain.sasl.jaas.config"] = _PLAIN
            if name != "clear":
                own = self.files.folder / f"{name}.pem"
                lines[f"{at}.ssl.keystore.type"] = lines[f"{at}.ssl.truststore.type"] = "PEM"
                lines[f"{at}.ssl.keystore.location"] = str(own if own.exists() else server)
                lines[f"{at}.ssl.truststore.location"] = str(self.files.ca)
                lines[f"{at}.ssl.client.auth"] = "required" if name == "mutual" else "none"
        lines["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        lines["super.users"] = "User:ANONYMOUS"
        return "".join(f"{key}={value}\n" for key, value in lines.items())


_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256")
