"""Kafka on one machine: one JVM that is broker and controller (KRaft), formatted once.

``python -m deploy.local.broker`` becomes Kafka: the supervised process is the JVM itself.

Kafka writes to the page cache and leaves it to the system when that goes to disk, as everywhere. With one replica
this means: an acknowledged record survives ``kill -9`` of anything, but not the loss of power. In production
replicas are the answer to that.
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from deploy.local.errors import LocalError
from deploy.local.home import Home
from deploy.local.jars import KAFKA, LIBS
from deploy.local.prerequisites import find_java
from deploy.local.waiting import Waiter
from midstream.settings import MIB, Settings, get_settings
from midstream.topics import MAX_MESSAGE_BYTES

_FORMAT_TIMEOUT_S = 60.0
_NODE_ID = 1

_JVM = [
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",  # two cores are shared with everything else: one collector thread, a small footprint
    "-XX:TieredStopAtLevel=1",  # up in 2 s where the optimizing compiler takes 4, for half of the CPU
    "-XX:+ExitOnOutOfMemoryError",  # the supervisor restarts it; a broker that limps along is worse
    "-Djava.awt.headless=true",
]


def server_properties(settings: Settings, data: str) -> str:
    """Return Kafka's configuration.

    ``data`` is its log folder, relative to the one it is started in: Kafka splits the value at commas and reads
    backslashes, which a home may have in its name.
    """
    broker, controller = settings.local_kafka_port, settings.local_kafka_controller_port
    # A record of the largest size takes a request of a little more, and so do its replies.
    message_bytes = MAX_MESSAGE_BYTES + MIB
    properties = {
        "process.roles": "broker,controller",
        "node.id": _NODE_ID,
        "controller.quorum.voters": f"{_NODE_ID}@127.0.0.1:{controller}",
        "listeners": f"BROKER://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"BROKER://127.0.0.1:{broker}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "BROKER",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "message.max.bytes": message_bytes,
        "replica.fetch.max.bytes": message_bytes,
        "socket.request.max.bytes": 4 * message_bytes,
        # What a single broker can have.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        # One member starts at a time, and nobody waits for more.
        "group.initial.rebalance.delay.ms": 0,
        # A week, as topics say themselves; never by size, which would delete what has not been stored yet.
        "log.retention.hours": 168,
        "log.segment.bytes": 256 * MIB,
        # The position of each group outlives a long holiday.
        "offsets.retention.minutes": 60 * 24 * 90,
        # A crash on a laptop is recovered with both cores.
        "num.recovery.threads.per.data.dir": 2,
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def is_formatted(data: Path) -> bool:
    """Whether a log folder is formatted.

    Raises:
        LocalError: it has records but is not formatted as a whole; formatting again would lose them.
    """
    if not data.exists():
        return False
    try:
        text = (data / "meta.properties").read_text()
    except FileNotFoundError:
        text = ""
    keys = {line.partition("=")[0].strip() for line in text.splitlines() if not line.startswith("#")}
    if {"cluster.id", "node.id", "version"} <= keys:
        return True
    if any(entry.is_dir() and entry.name != "__cluster_metadata-0" for entry in data.iterdir()):
        raise LocalError(
            f"Kafka's folder {data} has topics, but its meta.properties is missing or incomplete: put that file back "
            "from a copy, or move the folder away to start with an empty one (records not yet stored are then lost)"
        )
    return False


def format_storage(settings: Settings, home: Home, say: Callable[[str], None], waiter: Waiter) -> None:
    """Format Kafka's log folder if that has not been done; a formatting that was cut off is done anew.

    Raises:
        LocalError: it fails, or the folder is broken.
        StopRequestedError: a stop was asked for.
    """
    data = home.kafka / "data"
    if is_formatted(data):
        return
    if data.exists():
        say("Kafka's folder was formatted by half: formatting it anew")
        shutil.rmtree(data)
    # Formatted beside and renamed: the folder is there formatted, or not at all.
    new = home.kafka / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    config = home.run / "kafka-format.properties"
    config.write_text(server_properties(settings, new.name))
    identity = bytearray(uuid.uuid4().bytes)
    identity[0] &= 0x7F  # its text must not begin with "-", which would be read as an option
    cluster_id = base64.urlsafe_b64encode(identity).rstrip(b"=").decode()
    command = [*java_command(_java()), "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config)]
    waiter.run_command(command, _FORMAT_TIMEOUT_S, home.kafka)
    new.replace(data)


def java_command(java: str) -> list[str]:
    """Return the command line of a Kafka tool, without its main class."""
    logging = f"-Dlog4j2.configurationFile={(KAFKA / 'log4j2.properties').as_uri()}"
    return [java, *_JVM, logging, "-cp", str(LIBS / "*")]


def _java() -> str:
    java = find_java(os.environ)
    if java is None:
        raise LocalError("there is no java: set JAVA_HOME or PATH")
    return java


def main() -> None:
    """Become Kafka."""
    settings = get_settings()
    home = Home(settings.home)
    config = home.run / "kafka.properties"
    config.write_text(server_properties(settings, "data"))
    os.chdir(home.kafka)
    try:
        command = java_command(_java())
    except LocalError as error:
        sys.exit(f"midstream: {error}")
    os.execv(command[0], [*command, "kafka.Kafka", str(config)])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
