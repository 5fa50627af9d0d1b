"""A collector to be killed: ``python -m tests.contract.collector.killable HOME PORT KAFKA``.

``KAFKA`` is a folder that stands for Kafka: it is there while it has a file ``up``, and takes records into a file of
each process, a record a write. Settings come from the environment.
"""

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import uvicorn

from ingest.app import create_app
from ingest.publish import MakeReceipt, NotPublishedError, OutcomeUnknownError, SendAlone
from midstream.receipt import encode_receipt
from midstream.settings import Settings
from midstream.topics import RAW


class FolderPublisher:
    """Takes a record for good with one write of a line, and acknowledges it a little later."""

    def __init__(self, folder: Path) -> None:
        self._up = folder / "up"
        self._unsure = folder / "unsure"
        self._fd = os.open(folder / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._next = 0
        self._acknowledging: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        return self._up.exists()

    async def start(self) -> None:
        pass

    async def stop(self, timeout_s: float) -> None:
        pass

    async def publish(self, body: bytes, key: bytes, make_receipt: MakeReceipt, release: Callable[[], None]) -> None:
        try:
            if not self.ready:
                raise NotPublishedError("away")
            receipt = make_receipt(f"{os.getpid()}/0", self._next)
            self._next += 1
            lost = self._unsure.exists()
            if not lost:
                self._write(key, encode_receipt(receipt), body)
            await asyncio.sleep(0.002)
            if lost or self._unsure.exists():  # what was lost is never acknowledged, whatever comes meanwhile
                raise OutcomeUnknownError("no acknowledgement", receipt)
        finally:
            release()

    async def hand_over(
        self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> asyncio.Future[object]:
        if not self.ready:
            raise NotPublishedError("away")
        if topic == RAW.name:
            self._write(key, headers[0][1], value)
            await asyncio.sleep(0.001)
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._acknowledge(done))
        self._acknowledging.add(task)
        task.add_done_callback(self._acknowledging.discard)
        return done

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[SendAlone]:
        async def send(topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
            await (await self.hand_over(topic, key, value, headers))

        yield send

    async def _acknowledge(self, done: asyncio.Future[object]) -> None:
        await asyncio.sleep(0.002)
        done.set_result(None)

    def _write(self, key: bytes, receipt: bytes, body: bytes) -> None:
        parts = [base64.b64encode(part).decode() for part in (key, receipt, body)]
        os.write(self._fd, orjson.dumps(parts) + b"\n")


def main() -> None:
    settings = Settings(home=Path(sys.argv[1]), registry="")
    uvicorn.run(
        create_app(settings, FolderPublisher(Path(sys.argv[3]))),  # type: ignore[arg-type]
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_config=None,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
