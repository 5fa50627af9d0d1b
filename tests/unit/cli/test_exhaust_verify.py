import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from midstream.exhaust.manifest import manifest
from tests.support.exhaust import RESOURCE, json_hour, make_archive, make_day

from .conftest import Run

D1 = date(2026, 11, 20)
DAYS = [make_day(D1, [json_hour(D1, 3, 5), json_hour(D1, 4, 2)]), make_day(D1 + timedelta(days=1), [])]
ARCHIVE = make_archive(DAYS)
MANIFEST = json.dumps(manifest(day.facts for day in DAYS))
OTHER = json.dumps(manifest([make_day(D1, [json_hour(D1, 3, 5)]).facts, DAYS[1].facts]))
KEY = "9a1e6f0e-licence"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "dataset-2026-11-20-to-2026-11-21-1.zip"
    path.write_bytes(ARCHIVE)
    return str(path)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIDSTREAM_LICENCE_KEY", raising=False)


@contextmanager
def served(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """Serve one reply; yield its URL and what was sent as Authorization."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/manifest", seen
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_a_proven_download(run: Run, file: str, home: Path) -> None:
    result = run("exhaust", "verify", file)
    assert result.exit_code == 0
    assert result.stdout == f"D001 of {RESOURCE}: 2 days, 7 events, {len(ARCHIVE):,} bytes\n"
    assert result.stderr == "proven: whole and unaltered\n"
    assert not home.exists()


def test_wrong_settings_do_not_matter(run: Run, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_PORT", "0")
    assert run("exhaust", "verify", file).exit_code == 0


def test_an_altered_download(run: Run, file: str) -> None:
    at = ARCHIVE.index(b"PK\x07\x08")
    Path(file).write_bytes(ARCHIVE[:at] + b"X" + ARCHIVE[at + 1 :])
    result = run("exhaust", "verify", file)
    assert result.exit_code == 1
    finding, summary = result.stdout.splitlines()
    assert finding.startswith(f"aggregated-2026-11-20.gz: byte {at} of the archive differs")
    assert "7 events" in summary
    assert result.stderr == "not proven\n"


def test_json(run: Run, file: str) -> None:
    result = run("exhaust", "verify", file, "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "proven": True,
        "dataset": "D001",
        "resource": RESOURCE,
        "days": 2,
        "events": 7,
        "bytes": len(ARCHIVE),
        "findings": [],
        "more_findings": 0,
        "notes": [],
    }
    Path(file).write_bytes(b"no zip")
    result = run("exhaust", "verify", file, "--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert not said["proven"]
    assert said["findings"] == [{"place": "archive", "message": "it is no zip archive"}]


def test_what_others_wrote_is_no_terminals_command(run: Run, file: str) -> None:
    Path(file).write_bytes(ARCHIVE.replace(b"aggregated-2026-11-20.gz", b"\x1b[31mgated-2026-11-20.gz"))
    result = run("exhaust", "verify", file)
    assert result.exit_code == 1
    assert "\\x1b[31m" in result.stdout
    assert "\x1b" not in result.stdout


def test_no_more_than_a_hundred_findings_are_shown(run: Run, file: str) -> None:
    hours = [json_hour(D1, 3, 1, name=f"notes-{index}.txt") for index in range(105)]
    Path(file).write_bytes(make_archive([make_day(D1, hours)]))
    lines = run("exhaust", "verify", file).stdout.splitlines()
    assert len(lines) == 102
    assert lines[100] == "and 6 more"


def test_wrong_usage(run: Run, file: str, tmp_path: Path) -> None:
    for arguments in (
        [],
        [str(tmp_path / "missing.zip")],
        [str(tmp_path)],
        [file, "--manifest", str(tmp_path / "missing.json")],
        [file, "--manifest", str(tmp_path)],
        [file, "--manifest", "http://127.0.0.1:1/manifest"],
        [file, "--manifest", "http://127.0.0.1:1/manifest", "--key", "a\nb"],
    ):
        assert run("exhaust", "verify", *arguments).exit_code == 2, arguments


class TestManifest:
    def test_from_a_file(self, run: Run, file: str, tmp_path: Path) -> None:
        said = tmp_path / "manifest.json"
        said.write_text(MANIFEST)
        assert run("exhaust", "verify", file, "--manifest", str(said)).exit_code == 0
        said.write_text(OTHER)
        result = run("exhaust", "verify", file, "--manifest", str(said))
        assert result.exit_code == 1
        assert "the manifest does not name this file" in result.stdout

    @pytest.mark.parametrize("text", ["", "{}", '{"days": [{}]}', '{"days": "\x1b"}'])
    def test_a_file_that_is_none(self, run: Run, file: str, tmp_path: Path, text: str) -> None:
        said = tmp_path / "manifest.json"
        said.write_text(text)
        result = run("exhaust", "verify", file, "--manifest", str(said))
        assert result.exit_code == 1
        assert "the manifest cannot be used: " in result.stderr

    def test_from_a_url(self, run: Run, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with served(200, MANIFEST.encode()) as (url, seen):
            assert run("exhaust", "verify", file, "--manifest", url, "--key", KEY).exit_code == 0
            monkeypatch.setenv("MIDSTREAM_LICENCE_KEY", "from-the-variable")
            assert run("exhaust", "verify", file, "--manifest", url).exit_code == 0
        assert seen == [f"Bearer {KEY}", "Bearer from-the-variable"]

    def test_a_url_that_refuses(self, run: Run, file: str) -> None:
        reply = {"params": {"err": "LOGIN_FAILED", "errmsg": "the licence key is not known"}}
        with served(401, json.dumps(reply).encode()) as (url, _):
            result = run("exhaust", "verify", file, "--manifest", url, "--key", KEY)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.endswith("refused with 401: LOGIN_FAILED: the licence key is not known\n")

    def test_a_key_goes_nowhere_else(self, run: Run, file: str) -> None:
        with served(200, MANIFEST.encode()) as (url, seen), served(302, b"", Location=url) as (moved, first):
            result = run("exhaust", "verify", file, "--manifest", moved, "--key", KEY)
        assert result.exit_code == 1
        assert "refused with 302" in result.stderr
        assert (first, seen) == ([f"Bearer {KEY}"], [])

    def test_a_url_that_does_not_answer(self, run: Run, file: str) -> None:
        with served(200, b"") as (url, _):
            pass
        result = run("exhaust", "verify", file, "--manifest", url, "--key", KEY)
        assert result.exit_code == 1
        assert "the manifest cannot be fetched" in result.stderr
        assert KEY not in result.stderr

    def test_a_manifest_without_end(self, run: Run, file: str) -> None:
        with served(200, b" " * (16 * 1024 * 1024 + 1)) as (url, _):
            result = run("exhaust", "verify", file, "--manifest", url, "--key", KEY)
        assert result.exit_code == 1
        assert "more than 16777216 bytes" in result.stderr
