"""Waiting while starting: with a time limit, and ended by a stop."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from deploy.local.errors import LocalError, StopRequestedError

POLL_S = 0.05
_REQUEST_TIMEOUT_S = 5.0


class Flag:
    """Something that was asked for, once and for good.

    Unlike :class:`threading.Event` it may be set by a signal's handler: that one runs in the main thread, wherever
    that is, and an Event's lock may be held there at that moment (the documentation of ``signal`` warns of it).
    """

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """Ask for it."""
        self._set = True

    def is_set(self) -> bool:
        """Whether it was asked for."""
        return self._set

    def wait(self, seconds: float) -> bool:
        """Wait until it is asked for, or the time is over; return whether it was asked for."""
        deadline = time.monotonic() + seconds
        while not self._set and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, POLL_S))
        return self._set


class Waiter:
    """Waits for things until ``stop`` is set. Used by several threads at once."""

    def __init__(self, stop: Flag) -> None:
        self._stop = stop

    def pause(self, seconds: float = POLL_S) -> None:
        """Sleep.

        Raises:
            StopRequestedError: a stop was asked for.
        """
        if self._stop.wait(seconds):
            raise StopRequestedError

    def until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Ask until ``done`` or the time is over; return whether it was done.

        Raises:
            StopRequestedError: a stop was asked for.
        """
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                return False
            self.pause()
        return True

    def run_async(self, coroutine: Coroutine[object, object, None]) -> None:
        """Run a coroutine to its end.

        Raises:
            StopRequestedError: a stop was asked for; the coroutine was cancelled.
        """

        async def watched() -> None:
            task = asyncio.create_task(coroutine)
            while not task.done():
                if self._stop.is_set():
                    task.cancel()
                await asyncio.wait([task], timeout=POLL_S)
            if task.cancelled():
                raise StopRequestedError
            task.result()

        asyncio.run(watched())

    def run_command(self, command: list[str], timeout_s: float, folder: Path | None = None) -> None:
        """Run a command to its end, in ``folder``; its words are shown only if it fails.

        Raises:
            LocalError: it fails or exceeds the time limit.
            StopRequestedError: a stop was asked for; the command was ended.
        """
        try:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise LocalError(f"{command[0]} cannot be run: {error.strerror}") from None
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() > deadline:
                        raise LocalError(f"{command[0]} took longer than {timeout_s:.0f} s") from None
                    self.pause(0)
        except BaseException:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            raise
        self.pause(0)  # Ctrl-C ends the command too: that is no failure of it
        if process.returncode != 0:
            words = output.decode("utf-8", "replace").strip()[-2000:]
            raise LocalError(f"{command[0]} failed (exit status {process.returncode}):\n{words}")


def http_get(host: str, port: int, path: str) -> tuple[int, str]:
    """Return status and body of a GET; status 0 when there is no answer. No proxy is asked."""
    connection = http.client.HTTPConnection(host, port, timeout=_REQUEST_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(65536).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
