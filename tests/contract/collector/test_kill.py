"""A collector killed again and again, with Kafka coming and going: what was answered 200 comes out."""

import asyncio
import base64
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from ingest.spool.segment import DAMAGED
from midstream.receipt import Receipt, decode_receipt
from midstream.registry.credentials import Issued
from midstream.topics import RECEIPT_HEADER
from tests.support.ports import free_ports

from .conftest import PATH

ROOT = Path(__file__).resolve().parents[3]


@asynccontextmanager
async def collector(home: Path, spool: Path, kafka: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {
        **os.environ,
        "MIDSTREAM_SPOOL": str(spool),
        "MIDSTREAM_SPOOL_SEGMENT_BYTES": str(64 * 1024),
        "MIDSTREAM_KAFKA_TIMEOUT_MS": "1000",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contract.collector.killable", str(home), str(port), str(kafka), cwd=ROOT, env=env
    )
    try:
        async with httpx.AsyncClient() as client, asyncio.timeout(30):
            while True:
                with suppress(httpx.HTTPError):
                    await client.get(f"http://127.0.0.1:{port}/health")
                    break
                await asyncio.sleep(0.05)
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def taken(kafka: Path) -> Iterator[tuple[bytes, Receipt, bytes, bytes]]:
    """Key, receipt, the receipt's bytes and body of every record that Kafka has, the same ones twice too."""
    for log in kafka.glob("*.log"):
        for line in log.read_bytes().split(b"\n")[:-1]:  # a kill cuts the last write short, which was not acknowledged
            key, header, body = (base64.b64decode(part) for part in json.loads(line))
            receipt = decode_receipt([(RECEIPT_HEADER, header)])
            assert receipt is not None
            yield key, receipt, header, body


class App:
    """Posts bodies of its own one after the other, each until it is answered 200, and writes down what was said."""

    def __init__(self, name: int, port: int, token: str, chance: random.Random) -> None:
        self.posted: set[bytes] = set()
        self.accepted: dict[str, bytes] = {}
        self._name = name
        self._chance = chance
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}, timeout=10
        )

    async def run(self) -> None:
        number = 0
        async with self._client as client:
            while True:
                events = [{"app": self._name, "n": number, "x": "y" * self._chance.choice([1, 100, 20_000])}]
                body = json.dumps({"params": {"did": f"d{self._name}"}, "events": events}).encode()
                number += 1
                self.posted.add(body)
                while True:
                    try:
                        reply = await client.post(PATH, content=body)
                    except httpx.HTTPError:
                        await asyncio.sleep(0.05)
                        continue
                    if reply.status_code == 200:
                        self.accepted[reply.headers["x-batch-id"]] = body
                        break
                    assert reply.status_code == 503
                    await asyncio.sleep(0.05)


@pytest.mark.timeout(180)
async def test_every_batch_answered_200_comes_out_whole_and_none_is_invented(
    home: Path, tmp_path: Path, app_credential: Issued
) -> None:
    chance = random.Random(1)
    spool, kafka = tmp_path / "spool", tmp_path / "kafka"
    kafka.mkdir()
    (kafka / "up").touch()
    (port,) = free_ports(1)
    apps = [App(number, port, app_credential.token, chance) for number in range(4)]
    running = [asyncio.create_task(app.run()) for app in apps]
    accepted_away = 0
    for _ in range(7):
        async with collector(home, spool, kafka, port):
            for _ in range(chance.randrange(2, 5)):
                before = sum(len(app.accepted) for app in apps)
                away = not (kafka / "up").exists()
                await asyncio.sleep(chance.uniform(0.2, 1.0))
                accepted_away += (sum(len(app.accepted) for app in apps) - before) if away else 0
                for name, likely in (("up", 0.5), ("unsure", 0.3)):
                    if chance.random() < likely:
                        (kafka / name).touch()
                    else:
                        (kafka / name).unlink(missing_ok=True)
        # Killed, whatever it was doing.
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert not any(task.done() and not task.cancelled() for task in running)
    (kafka / "up").touch()
    (kafka / "unsure").unlink(missing_ok=True)
    async with collector(home, spool, kafka, port):
        async with asyncio.timeout(60):
            while list(spool.glob("*/*.spool")):  # noqa: ASYNC110  another process drains it
                await asyncio.sleep(0.1)
    accepted = {id_: body for app in apps for id_, body in app.accepted.items()}
    posted = set().union(*(app.posted for app in apps))
    came: dict[str, bytes] = {}
    numbers: dict[str, dict[int, str]] = {}
    for key, receipt, _, body in taken(kafka):
        assert body in posted
        assert key == receipt.did.encode()
        assert receipt.bytes == len(body)
        assert came.setdefault(receipt.batch_id, body) == body
        # A number of a collector is one batch, however often it comes.
        assert numbers.setdefault(receipt.collector, {}).setdefault(receipt.sequence, receipt.batch_id) == (
            receipt.batch_id
        )
    assert {id_: came.get(id_) for id_ in accepted} == accepted
    assert accepted_away > 20
    for collector_name, found in numbers.items():
        if collector_name.endswith("/spool"):
            assert sorted(found) == list(range(len(found))), collector_name
    assert not list(spool.glob(f"*/{DAMAGED}"))
    assert [path.name for path in spool.iterdir()] == ["0"]
