"""Client of supervisord's XML-RPC interface, on its Unix socket."""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client  # nosec B411 # reads what our own supervisor says, over a socket of our own
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from deploy.local.errors import LocalError

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What the supervisor knows of a process now. ``pid`` is 0 while it does not run."""

    name: str
    state: str
    pid: int
    log: str


class SupervisorGoneError(LocalError):
    """supervisord has ended, is ending, or does not answer."""


class SupervisorClient:
    """Asks a running supervisord, and tells it what to start and to stop."""

    def __init__(self, path: Path) -> None:
        """``path`` is its socket; nothing is connected yet."""
        self._rpc = xmlrpc.client.ServerProxy("http://localhost", transport=_UnixTransport(path))

    def processes(self) -> dict[str, ProcessInfo]:
        """Return what the supervisor knows of each process, by name.

        Raises:
            SupervisorGoneError: it does not answer.
        """
        try:
            answer = cast("list[dict[str, Any]]", self._call("supervisor.getAllProcessInfo"))
        except xmlrpc.client.Fault as fault:
            raise SupervisorGoneError(f"the supervisor is being stopped: {fault.faultString}") from None
        return {
            entry["name"]: ProcessInfo(entry["name"], entry["statename"], entry["pid"], entry["stdout_logfile"])
            for entry in answer
        }

    def start(self, name: str) -> None:
        """Start a process, without waiting for it; nothing happens if it runs.

        Raises:
            SupervisorGoneError: the supervisor does not answer.
            LocalError: it refuses.
        """
        try:
            self._call("supervisor.startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise LocalError(f"{name} cannot be started: {fault.faultString}") from None

    def stop(self, name: str) -> None:
        """Stop a process, without waiting for its end, and leave it stopped; nothing happens if it does not run.

        Raises:
            SupervisorGoneError: the supervisor does not answer.
            LocalError: it refuses.
        """
        try:
            self._call("supervisor.stopProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if "NOT_RUNNING" not in fault.faultString:
                raise LocalError(f"{name} cannot be stopped: {fault.faultString}") from None

    def _call(self, method: str, *arguments: object) -> object:
        try:
            return getattr(self._rpc, method)(*arguments)
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            raise SupervisorGoneError(f"the supervisor does not answer: {error}") from None


class _UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket, with a time limit."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        """Return a connection; the host means nothing here."""
        return _UnixConnection(self._path)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))
