"""A collector that is sent more than it can take: ``python -m tests.contract.collector.overloaded HOME PORT``.

Batches become durable some milliseconds after they were handed over. At the end it says what those were, a line each:
batch id and SHA-256 of the body.
"""

import asyncio
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn

from ingest.app import create_app
from ingest.publish import MakeReceipt
from midstream.logs import configure_logs
from midstream.receipt import encode_receipt
from midstream.settings import MIB, Settings

from .doubles import MemoryPublisher

MAX_IN_FLIGHT_BYTES = 4 * MIB
_ACKNOWLEDGE_S = 0.01


class DigestingPublisher(MemoryPublisher):
    """Keeps what tells batches apart, and not the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    async def publish(self, body: bytes, key: bytes, make_receipt: MakeReceipt, release: Callable[[], None]) -> None:
        receipt = make_receipt("memory", len(self.lines))
        encode_receipt(receipt)
        self.lines.append(f"{receipt.batch_id} {hashlib.sha256(body).hexdigest()}")
        try:
            await asyncio.sleep(_ACKNOWLEDGE_S)
        finally:
            release()

    async def stop(self, timeout_s: float) -> None:
        print("\n".join(self.lines), flush=True)


def main() -> None:
    settings = Settings(
        home=Path(sys.argv[1]), registry="", spool=Path(sys.argv[1]) / "spool", max_in_flight_bytes=MAX_IN_FLIGHT_BYTES
    )
    configure_logs(settings, "overloaded")
    uvicorn.run(
        create_app(settings, DigestingPublisher()),  # type: ignore[arg-type]
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
