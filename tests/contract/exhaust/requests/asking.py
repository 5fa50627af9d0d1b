"""Requests for large downloads, as a partner makes and reads them."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, select

from midstream.registry.exhaust.tables import Licence, Request
from midstream.settings import Settings
from serve.exhaust.requests.jobs import Pace
from tests.contract.exhaust.conftest import HASH, Partner, day_before
from tests.support.waiting import wait_until

FIRST, DAY = day_before(3), day_before(1)
QUICK = Pace(poll_s=0.1, tell_s=0.05, lease_s=2.0, tries=2, pause_s=0.1, away_s=0.2, look_s=0.2)
SLOW_LOOK = Pace(poll_s=0.1, tell_s=0.05, look_s=3_600)
BASE = "/v1/dataset/request"


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def ask(partner: Partner, first: object = FIRST, last: object = DAY, **more: Any) -> httpx.Response:
    days = {"fromDate": str(first), "toDate": str(last)}
    said = {"licensekey": partner.key, "datasetId": "D001", "resourceId": HASH, **days, **more}
    return partner.http.post(f"{BASE}/submit", json=partner.body(**said))


def submit(partner: Partner, first: object = FIRST, last: object = DAY, **more: Any) -> dict[str, Any]:
    reply = ask(partner, first, last, **more)
    assert reply.status_code == 200, reply.text
    assert reply.json()["params"] | {"resmsgid": ""} == {
        "resmsgid": "",
        "msgid": "m-1",
        "status": "successful",
        "err": None,
        "errmsg": None,
    }
    return dict(reply.json()["result"])


def read(partner: Partner, request_id: str) -> dict[str, Any]:
    reply = partner.http.get(f"{BASE}/read/{request_id}", headers=partner.bearer)
    assert reply.status_code == 200, reply.text
    return dict(reply.json()["result"])


def ended(partner: Partner, request_id: str, status: str = "SUCCESS") -> dict[str, Any]:
    """Wait for a request's end."""

    def look() -> dict[str, Any] | None:
        found = read(partner, request_id)
        return None if found["status"] in ("SUBMITTED", "PROCESSING") else found

    found = wait_until("the request has ended", look, 60)
    assert found["status"] == status, found
    return found


def assert_refused(reply: httpx.Response, status: int, code: str, *words: str) -> None:
    assert (reply.status_code, reply.json()["params"]["err"]) == (status, code), reply.text
    assert reply.json()["params"]["status"] == "failed"
    for word in words:
        assert word in reply.json()["params"]["errmsg"]
    assert ("retry-after" in reply.headers) == (status in (429, 503))


def kept_files(settings: Settings) -> list[Path]:
    return [path for path in (settings.exhaust_folder / "requests").glob("*/*") if path.is_file()]


def get(url: str, **more: Any) -> httpx.Response:
    return httpx.get(url, timeout=30, trust_env=False, **more)


def licence_ids(registry: Engine) -> list[int]:
    with registry.connect() as connection:
        return list(connection.scalars(select(Licence.id)))


def ended_row(registry: Engine, request_id: str) -> Any:
    query = select(Request.status, Request.message).where(Request.id == request_id, Request.completed_at.is_not(None))
    with registry.connect() as connection:
        return connection.execute(query).one_or_none()


def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
