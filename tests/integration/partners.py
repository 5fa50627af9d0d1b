"""Partners who download datasets from a running pipeline, and what can be seen of it from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import httpx
import psutil

from tests.contract.exhaust.archive import Archive
from tests.integration.outside import Outside, Row, unique, web_workers
from tests.support.pipeline import Pipeline


class Partner:
    """Who downloads with a licence that the command has made."""

    def __init__(self, outside: Outside, *rights: tuple[str, str]) -> None:
        self.pipeline = outside.pipeline
        self.name = unique("partner")
        options = [word for dataset, resource in rights for word in ("--dataset", dataset, "--resource", resource)]
        self.key = outside.cli("licence", "create", self.name, *options)
        self.dataset, self.resource = rights[0]

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    @property
    def body(self) -> Row:
        return {
            "id": "ekstep.data_exhaust_dataset_service",
            "ver": "1.0",
            "ts": "2026-01-01T00:00:00+00:00",
            "params": {"requesterId": "", "did": "", "key": "", "msgid": "m-1"},
            "request": {"licensekey": self.key},
        }

    def url(self, *days: object, dataset: str | None = None, resource: str | None = None) -> str:
        parts = [dataset or self.dataset, resource or self.resource, *(str(day) for day in days)]
        return "/".join([self.pipeline.base_url, "v1/datasets", *parts])

    def post(self, url: str, body: Row | None = None) -> httpx.Response:
        """Download over a connection of its own, so that any worker may answer."""
        return httpx.post(url, json=body or self.body, timeout=60, trust_env=False)

    def archive(self, first: date, last: date, **where: str) -> Archive:
        """Download days whole."""
        reply = self.post(self.url(first, last, **where))
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"] == "application/zip"
        return Archive(reply.content)

    def manifest(self, first: date, last: date, **where: str) -> list[Row]:
        """Return what the manifest says of each day."""
        url = self.url(first, last, "manifest", **where)
        reply = httpx.get(url, headers=self.bearer, timeout=60, trust_env=False)
        assert reply.status_code == 200, reply.text
        days: list[Row] = reply.json()["days"]
        return days

    @contextmanager
    def stream(self, *days: object) -> Iterator[httpx.Response]:
        """Begin a download that the test reads."""
        with (
            httpx.Client(timeout=60, trust_env=False) as client,
            client.stream("POST", self.url(*days), json=self.body) as reply,
        ):
            assert reply.status_code == 200
            yield reply


def worker_of(pipeline: Pipeline, reply: httpx.Response) -> int:
    """Return the process that answers a reply which is still open."""
    port = reply.extensions["network_stream"].get_extra_info("client_addr")[1]
    for pid in web_workers(pipeline):
        connections = psutil.Process(pid).net_connections("tcp")
        if any(connection.raddr and connection.raddr.port == port for connection in connections):
            return pid
    raise AssertionError(f"no process has a connection to port {port}")


def builders(pipeline: Pipeline) -> list[psutil.Process]:
    """Return the living processes that build days for this pipeline, whoever is their parent."""
    found = []
    home = os.fsencode(str(pipeline.home.root))
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if "serve.exhaust.days.builder" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                environ = Path(f"/proc/{process.pid}/environ").read_bytes()
                if b"MIDSTREAM_HOME=" + home in environ.split(b"\0"):
                    found.append(process)
    return found


def error_of(reply: httpx.Response) -> tuple[int, str]:
    """Return status and code of a refusal, which must have its documented form."""
    assert reply.headers["content-type"] == "application/json"
    said = reply.json()
    assert (said["id"], said["ver"]) == ("ekstep.data_exhaust_dataset_service", "1.0")
    assert said["params"]["status"] == "failed"
    assert said["params"]["errmsg"]
    assert said["params"]["resmsgid"]
    return reply.status_code, said["params"]["err"]


def exhaust_folder(pipeline: Pipeline) -> Path:
    return pipeline.home.root / "exhaust"
