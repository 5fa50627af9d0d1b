"""A real download, read by what partners read it with."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.contract.exhaust.archive import Archive
from tests.contract.exhaust.conftest import HASH, Partner, Store, day_before

DAY, BEFORE, FIRST = day_before(1), day_before(2), day_before(3)


@pytest.fixture
def days(store: Store) -> None:
    """A day of many events, one of none, one of two hours; closed."""
    store.fill(FIRST, 5_000)
    store.put(DAY, 12.5, raw='{"eid": "LOG",\n "text": "two\\nlines, \u2028 ñ",\n "tags": []}')
    store.put(DAY, 3600.0 * 23)
    store.close_days()


def read_by_java(partner: Partner) -> list[str]:
    source = Path(__file__).with_name("Downloads.java")
    url = f"{partner.api.url}{partner.path}/{FIRST}/{DAY}"
    command = ["java", "-Xmx64m", str(source), url, json.dumps(partner.body())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def as_java_reads(archive: Archive) -> list[str]:
    lines = []
    for day in (FIRST, BEFORE, DAY):
        lines.append(f"aggregated-{day}.gz")
        for name, packed in archive.files(day).items():
            text = gzip.decompress(packed)
            breaks = text.count(b"\n")
            lines.append(f"{name} {breaks} {hashlib.sha256(text).hexdigest()}")
    return lines


@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
def test_java_reads_it_as_a_stream_while_it_is_built_and_after(partner: Partner, days: None) -> None:
    growing = read_by_java(partner)
    built = read_by_java(partner)
    archive = partner.archive(FIRST, DAY)
    assert growing == built == ["200 application/zip", *as_java_reads(archive)]
    assert len(archive.files(FIRST)) == 24
    assert archive.files(BEFORE) == {}
    assert len(archive.lines(DAY)) == 2


def verify(file: Path, *options: str, key: str = "") -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MIDSTREAM_")}
    if key:
        environ["MIDSTREAM_LICENCE_KEY"] = key
    command = [sys.executable, "-m", "midstream.cli", "exhaust", "verify", str(file), *options]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_it_is_proven_against_the_manifest_of_the_service(
    partner: Partner, days: None, tmp_path: Path, form: str
) -> None:
    query = f"?format={form}"
    file = tmp_path / "download.zip"
    file.write_bytes(partner.archive(FIRST, DAY, query=query).content)
    url = f"{partner.api.url}{partner.path}/{FIRST}/{DAY}/manifest{query}"
    done = verify(file, "--manifest", url, key=partner.key)
    assert (done.returncode, done.stderr) == (0, "proven: whole and unaltered\n"), done
    assert done.stdout == f"D001 of {HASH}: 3 days, 5,002 events, {file.stat().st_size:,} bytes\n"
    refused = verify(file, "--manifest", url, key="00000000-0000-4000-8000-000000000000")
    assert refused.returncode == 1
    assert "the manifest is refused with 401: LOGIN_FAILED" in refused.stderr


def test_what_is_altered_is_not_proven(partner: Partner, days: None, tmp_path: Path) -> None:
    file = tmp_path / "download.zip"
    content = bytearray(partner.archive(FIRST, DAY).content)
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    url = f"{partner.api.url}{partner.path}/{FIRST}/{DAY}/manifest"
    done = verify(file, "--manifest", url, key=partner.key)
    assert done.returncode == 1
    assert f"aggregated-{FIRST}.gz" in done.stdout
    file.write_bytes(content[: len(content) // 2])
    cut = verify(file)
    assert cut.returncode == 1
    assert f"at byte {len(content) // 2}" in cut.stdout


class _Cutting:
    """Passes connections on to a port; cuts the first ones off after so many bytes of what comes back."""

    def __init__(self, to_port: int, cuts: Sequence[int]) -> None:
        self._to_port = to_port
        self._cuts = list(cuts)
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self._to_port), timeout=30) as server:
                client.settimeout(30)
                with suppress(OSError):
                    self._pass(client, server, self._cuts.pop(0) if self._cuts else None)

    def _pass(self, client: socket.socket, server: socket.socket, left: int | None) -> None:
        """One request at a time: the clients here send none before the reply to the last."""
        ends = {client: server, server: client}
        while True:
            for end in select.select(list(ends), [], [], 30)[0]:
                data = end.recv(65536)
                if end is client and data:
                    self.requests.append(data)
                if end is server and left is not None:
                    data = data[:left]
                    left -= len(data)
                if not data:
                    return
                ends[end].sendall(data)


def test_the_client_of_the_page_goes_on_where_it_broke_off(partner: Partner, days: None, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "exhaust.md").read_text("utf-8")
    found = re.search(r"^cat > download.py <<'(\w+)'\n(.*?)^\1$", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    client = tmp_path / "download.py"
    client.write_text(found[2], "utf-8")
    archive = partner.archive(FIRST, DAY)
    # Within the headers, soon after them, and twice on the way.
    proxy = _Cutting(partner.api.settings.port, [20, 2_000, 500_000, 700_000])
    file = tmp_path / "mine.zip"
    try:
        done = subprocess.run(
            [sys.executable, str(client), f"http://127.0.0.1:{proxy.port}{partner.path}/{FIRST}/{DAY}", str(file)],
            env={**os.environ, "MIDSTREAM_LICENCE_KEY": partner.key, "NO_PROXY": "*"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        proxy.close()
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == archive.content
    assert done.stdout == "".join(f"{day} {len(archive.lines(day))} events, proven\n" for day in (FIRST, BEFORE, DAY))
    assert done.stderr.count("going on") == 4
    starts = [int(found[1]) for one in proxy.requests if (found := re.search(rb"(?i)\r\nrange: bytes=(\d+)-\r\n", one))]
    assert len(proxy.requests) == 6  # the manifest is the last
    assert starts == sorted(starts)
    assert len(starts) == 3
    assert starts[-1] > 1_000_000
