"""The producer keeps trying to connect, whatever stands in its way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import trustme

from midstream.kafka import producer as module
from midstream.kafka.producer import Producer
from midstream.settings import Settings
from tests.support.ports import free_ports


async def test_a_certificate_that_is_being_renewed_ends_no_producer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LAST_BACKOFF_S", 0.01)
    [port] = free_ports(1)
    ca = tmp_path / "ca.pem"
    settings = Settings.model_validate(
        {"kafka": f"127.0.0.1:{port}", "kafka_security": "ssl", "kafka_ca": ca, "kafka_timeout_ms": 200}
    )
    tries = 0

    def connect(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise OSError("reached")

    ca.write_text("half a fi")
    producer = Producer(settings, ["telemetry.raw"])
    await producer.start()
    try:
        await asyncio.sleep(0.1)
        assert producer._task is not None
        assert not producer._task.done()
        trustme.CA().cert_pem.write_to_path(ca)
        monkeypatch.setattr(module.AIOKafkaProducer, "start", connect)
        async with asyncio.timeout(5):
            while tries < 2:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
    finally:
        await producer.stop(0.1)
