"""TLS in front of a port that has none, as a proxy of a deployment does."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

_START_S = 10.0


class TlsProxy:
    """Listens on a free port for each certificate and hands bytes on to one port of 127.0.0.1, both ways."""

    def __init__(self, target: int, certificates: Mapping[str, Path]) -> None:
        """Take the port to hand on to, and the PEM file of key and certificates to show, by name."""
        self.ports: dict[str, int] = {}
        self._target = target
        self._certificates = certificates
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def __enter__(self) -> TlsProxy:
        self._thread.start()
        assert self._up.wait(_START_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_S)

    async def _serve(self) -> None:
        for name, file in self._certificates.items():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file)
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=context)
            self.ports[name] = server.sockets[0].getsockname()[1]
        self._up.set()
        await self._stop.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass  # one side has gone: the other is told by the close
    finally:
        writer.close()
