"""Kafka: who lets us in, the topics, the clock, the certificate."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.check.certificates import check_certificate, check_own_certificate
from midstream.check.clocks import judge_skew
from midstream.check.result import Result, fail, ok, warn
from midstream.check.topics import FoundTopic, judge_topics
from midstream.faults import Fault
from midstream.kafka.access import Refusal, look
from midstream.kafka.connection import connection, server_addresses
from midstream.settings import Settings
from midstream.settings.tls import client_context

_CLIENT = "midstream-check"
_RIGHTS = "give our user the rights of docs/connections.md#rights-in-kafka"
_TELLS_TIME_S = 5.0
"""A collector writes a mark a second: where there are none so young, only a clock ahead of ours can be told."""

_CHANGES = {
    Fault.UNREACHABLE: "start Kafka, or set MIDSTREAM_KAFKA to where it listens",
    Fault.CLOSED: "set MIDSTREAM_KAFKA_SECURITY to what that port speaks, or MIDSTREAM_KAFKA to another port",
    Fault.NOT_TLS: "set MIDSTREAM_KAFKA_SECURITY to what that port speaks, or MIDSTREAM_KAFKA to another port",
    Fault.UNKNOWN_CA: "set MIDSTREAM_KAFKA_CA to the PEM file of the CA that issued Kafka's certificate",
    Fault.CERTIFICATE_EXPIRED: "renew the broker's certificate, and look at both clocks",
    Fault.WRONG_HOST_NAME: "name the broker in MIDSTREAM_KAFKA as its certificate does, or give it another one",
    Fault.CERTIFICATE_INVALID: "give the broker a valid certificate",
    Fault.OUR_CERTIFICATE_REFUSED: "set MIDSTREAM_KAFKA_CERTIFICATE and _KEY to a pair from a CA that Kafka trusts",
    Fault.MECHANISM_REFUSED: "set MIDSTREAM_KAFKA_SASL_MECHANISM to one that the broker's listener enables",
    Fault.LOGIN_REFUSED: "correct MIDSTREAM_KAFKA_USER and MIDSTREAM_KAFKA_PASSWORD, or create the user in Kafka",
    Fault.NOT_ALLOWED: _RIGHTS,
}


def check_kafka(settings: Settings, timeout_s: float) -> list[Result]:
    """Return what is to be said of Kafka; each wait for it is at most ``timeout_s``."""
    refusals = asyncio.run(look(settings, timeout_s))
    servers = server_addresses(settings)
    if len(refusals) == len(servers):
        return [_refused(refusal) for refusal in refusals]
    results = [
        ok("kafka", f"{settings.kafka_servers}, {settings.kafka_security}"),
        *(warn("kafka", str(refusal), _CHANGES[refusal.fault]) for refusal in refusals),
    ]
    if settings.kafka_security == "sasl_plaintext" or (settings.kafka and settings.kafka_security == "plaintext"):
        results.append(_unprotected(settings))
    try:
        results += asyncio.run(_ask(settings, timeout_s))
    except (KafkaError, OSError, TimeoutError) as error:
        results.append(_not_told(error, timeout_s))
    if settings.kafka_has_tls:
        context = client_context("MIDSTREAM_KAFKA", settings.kafka_ca, settings.kafka_certificate, settings.kafka_key)
        results += [check_certificate("kafka.certificate", *server, context, timeout_s) for server in servers]
        if settings.kafka_certificate is not None:
            results.append(check_own_certificate("kafka.certificate", settings.kafka_certificate))
    return results


def _refused(refusal: Refusal) -> Result:
    return fail("kafka", f"cannot be reached: {refusal}", _CHANGES[refusal.fault])


def _unprotected(settings: Settings) -> Result:
    what = "user and password" if settings.kafka_has_users else "events"
    message = f"MIDSTREAM_KAFKA_SECURITY={settings.kafka_security}: {what} are read by whoever sees the network"
    return warn("kafka.security", message, "give Kafka a TLS listener and set MIDSTREAM_KAFKA_SECURITY=sasl_ssl")


def _not_told(error: BaseException, timeout_s: float) -> Result:
    if isinstance(error, (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)):
        return fail("kafka.topics", f"{Fault.NOT_ALLOWED}: our user may not see {error}", _RIGHTS)
    said = f"no answer in {timeout_s:.0f} s" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return fail("kafka.topics", said, "look at the broker's log")


async def _ask(settings: Settings, timeout_s: float) -> list[Result]:
    admin = AIOKafkaAdminClient(**connection(settings), client_id=_CLIENT, request_timeout_ms=int(timeout_s * 1000))
    try:
        async with asyncio.timeout(timeout_s):
            await admin.start()
            described = await admin.describe_topics([topic.name for topic in topics.ALL])
            brokers = len((await admin.describe_cluster())["brokers"])
            present = [entry for entry in described if not _is_missing(entry)]
            config = await _configs(admin, [entry["topic"] for entry in present])
    finally:
        await admin.close()
    found = {entry["topic"]: _found(entry, config[entry["topic"]]) for entry in present}
    results = judge_topics(topics.ALL, found, brokers, settings.replication_factor)
    marks = found.get(topics.COLLECTORS.name)
    if marks is not None and not marks.without_leader:
        results.append(await _clock(settings, marks.partitions, timeout_s))
    return results


def _is_missing(entry: dict[str, Any]) -> bool:
    error = for_code(entry["error_code"])
    if error is TopicAuthorizationFailedError:
        raise error(f"topic {entry['topic']}")
    return bool(entry["error_code"]) and not entry["partitions"]


def _found(entry: dict[str, Any], config: dict[str, str]) -> FoundTopic:
    partitions = entry["partitions"]
    return FoundTopic(
        partitions=len(partitions),
        replicas=min(len(one["replicas"]) for one in partitions),
        without_leader=sum(one["leader"] < 0 for one in partitions),
        behind=sum(len(one["isr"]) < len(one["replicas"]) for one in partitions),
        config=config,
    )


async def _configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    for response in await admin.describe_configs(resources) if resources else []:
        for code, _message, _kind, name, entries in response.resources:
            if code:
                raise for_code(code)(f"the settings of topic {name}")
            found[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return found


async def _clock(settings: Settings, partitions: int, timeout_s: float) -> Result:
    """Compare clocks by the newest mark of a collector: Kafka's own clock has stamped it. Nothing is written."""
    consumer = AIOKafkaConsumer(
        **connection(settings),
        client_id=_CLIENT,
        group_id=None,
        enable_auto_commit=False,
        request_timeout_ms=int(timeout_s * 1000),
    )
    places = [TopicPartition(topics.COLLECTORS.name, number) for number in range(partitions)]
    newest_ms = 0
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.start()
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            begins = await consumer.beginning_offsets(places)
            for place in places:
                if ends[place] > begins[place]:
                    consumer.seek(place, ends[place] - 1)
                    newest_ms = max(newest_ms, (await consumer.getone(place)).timestamp)
    finally:
        await consumer.stop()
    if not newest_ms:
        return ok("kafka.clock", "not checked: no collector has written anything yet")
    ahead_s = newest_ms / 1000 - time.time()
    if ahead_s < -_TELLS_TIME_S:
        return ok("kafka.clock", f"not ahead of ours; its newest record is {-ahead_s:.0f} s old")
    return judge_skew("kafka.clock", ahead_s, _TELLS_TIME_S if ahead_s < 0 else 0.0)
