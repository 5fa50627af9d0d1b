"""What tests of the fleet's API share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx


@dataclass
class Caller:
    """Calls the API with one ``Authorization``."""

    client: httpx.AsyncClient
    key: str | None
    base: str = ""

    async def __call__(self, method: str, path: str, sent: Any = None, **more: Any) -> httpx.Response:
        headers = {"Authorization": self.key} if self.key is not None else {}
        body = {"content": sent} if isinstance(sent, bytes) else {"json": sent} if sent is not None else {}
        return await self.client.request(method, f"{self.base}{path}", headers=headers, **body, **more)


@dataclass
class Device:
    """A registered device that calls."""

    id: str
    key: str
    call: Caller


def is_refused(reply: httpx.Response, status: int) -> str:
    """Check a refusal's form; return its words."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json()) == {"error"}
    assert isinstance(reply.json()["error"], str)
    if status in (429, 503):
        assert int(reply.headers["retry-after"]) >= 1
    return str(reply.json()["error"])


def is_good(reply: httpx.Response, status: int = 200) -> Any:
    """Check a good reply's form; return what it says."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    return reply.json()
