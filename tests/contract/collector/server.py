"""A collector behind uvicorn for tests of the wire: ``python -m tests.contract.collector.server HOME PORT``.

Batches become durable after a second, so that a signal finds requests under way.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn

from ingest.app import create_app
from ingest.publish import MakeReceipt
from midstream.settings import Settings

from .doubles import MemoryPublisher


class SlowPublisher(MemoryPublisher):
    async def publish(self, body: bytes, key: bytes, make_receipt: MakeReceipt, release: Callable[[], None]) -> None:
        await asyncio.sleep(1)
        await super().publish(body, key, make_receipt, release)


def main() -> None:
    settings = Settings(home=Path(sys.argv[1]), registry="")
    app = create_app(settings, SlowPublisher())
    uvicorn.run(
        app,  # type: ignore[arg-type]
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_config=None,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
