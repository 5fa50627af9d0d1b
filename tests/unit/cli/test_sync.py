"""``midstream sync`` and ``midstream jobs``, on the registry."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from midstream.registry.engine import open_engine
from midstream.registry.migrate import migrate
from midstream.registry.sync.erasures import Erasures
from midstream.registry.sync.jobs import Jobs
from midstream.registry.sync.queue import Outcome, Progress, Queue
from midstream.settings import load_settings

from .conftest import Run


@pytest.fixture
def engine(home: Path) -> Iterator[Engine]:
    settings = load_settings()
    migrate(settings)
    opened = open_engine(settings)
    yield opened
    opened.dispose()


@pytest.fixture
def later() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Run something beside the test."""
    threads: list[threading.Thread] = []

    def start(work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def run_next(engine: Engine, end: Callable[[Queue, str], object]) -> None:
    """Do what the pipeline does: take the next job, and end it."""
    queue = Queue(engine)
    deadline = time.monotonic() + 20
    while (claim := queue.claim("a", 30)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    queue.renew(claim.job.id, "a", 30, Progress("correct", 1, 2, 2, {}))
    time.sleep(0.8)
    end(queue, claim.job.id)


class TestSync:
    def test_it_prints_the_id_and_nothing_else(self, run: Run, engine: Engine) -> None:
        result = run("sync", "user", "u1", "é/2", "u1", "--full", "--force")
        assert (result.exit_code, result.stderr) == (0, "")
        (job_id,) = result.stdout.splitlines()
        job = Jobs(engine).get(job_id)
        assert job is not None
        assert (job.kind, job.type, job.status, job.options) == (
            "sync",
            "user",
            "queued",
            {"full": True, "force": True},
        )
        assert Jobs(engine).ids_of(job_id) == ["u1", "é/2"]

    def test_all_of_a_type(self, run: Run, engine: Engine) -> None:
        job = Jobs(engine).get(run("sync", "content").stdout.strip())
        assert job is not None
        assert job.is_for_all

    def test_json(self, run: Run) -> None:
        result = run("sync", "device", "--json")
        said = json.loads(result.stdout)
        assert (said["type"], said["status"]) == ("device", "queued")

    @pytest.mark.parametrize(
        "arguments", [[], ["User"], ["erased"], ["user", ""], ["user", "x" * 1025], ["user", "--nonsense"]]
    )
    def test_wrong_usage(self, run: Run, engine: Engine, arguments: list[str]) -> None:
        result = run("sync", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert not Jobs(engine).page(limit=1)

    def test_too_many_ids_are_wrong_usage(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MIDSTREAM_SYNC_MAX_IDS", "2")
        assert run("sync", "user", "a", "b").exit_code == 0
        result = run("sync", "user", "a", "b", "c")
        assert result.exit_code == 2
        assert "at most 2" in result.stderr

    def test_what_was_erased_is_refused(self, run: Run, engine: Engine) -> None:
        erasures = Erasures(load_settings(), engine)
        erasures.add(erasures.digest("user", "gone"), "user", "job")
        result = run("sync", "user", "a", "gone")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "ERASED" in result.stderr
        assert run("sync", "device", "gone").exit_code == 0

    def test_followed_to_a_good_end(self, run: Run, engine: Engine, later: Callable[..., None]) -> None:
        outcome = Outcome(2, {"dimensions": 1, "events": 7}, report={"source": {"refused": 3}})
        later(lambda: run_next(engine, lambda queue, id_: queue.finish(id_, "a", outcome)))
        result = run("sync", "user", "--follow")
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) == 1
        assert result.stderr.splitlines()[-1] == "2 objects; changed: 1 dimensions, 7 events; 3 rows refused"
        assert "correct" in result.stderr

    def test_followed_to_a_bad_end(self, run: Run, engine: Engine, later: Callable[..., None]) -> None:
        later(lambda: run_next(engine, lambda queue, id_: queue.fail(id_, "a", "SOURCE_CUT: \x1b[2J half a line")))
        result = run("sync", "user", "--follow", "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["status"] == "failed"
        assert "failed: SOURCE_CUT: \\x1b[2J half a line" in result.stderr

    def test_followed_and_cancelled(self, run: Run, engine: Engine, later: Callable[..., None]) -> None:
        later(lambda: run_next(engine, lambda queue, id_: queue.cancel(id_, "a")))
        result = run("sync", "user", "--follow")
        assert result.exit_code == 1
        assert "was cancelled" in result.stderr


class TestJobs:
    def test_list_show_cancel(self, run: Run) -> None:
        ids = [run("sync", "user", f"u{number}").stdout.strip() for number in range(3)]
        assert [job["id"] for job in json.loads(run("jobs", "list", "--json").stdout)] == ids[::-1]
        assert json.loads(run("jobs", "show", ids[0]).stdout)["status"] == "queued"
        for _ in range(2):
            assert run("jobs", "cancel", ids[0]).stdout == "cancelled\n"
        assert [job["id"] for job in json.loads(run("jobs", "list", "--status", "cancelled", "--json").stdout)] == ids[
            :1
        ]
        lines = run("jobs", "list", "--limit", "2").stdout.splitlines()
        assert lines[0].split()[:4] == ["ID", "KIND", "TYPE", "STATUS"]
        assert [line.split()[0] for line in lines[1:]] == ids[:0:-1]

    def test_what_is_not_there(self, run: Run) -> None:
        for command in ("show", "cancel"):
            result = run("jobs", command, "x")
            assert (result.exit_code, result.stdout) == (1, "")
            assert "no" in result.stderr

    def test_too_late(self, run: Run, engine: Engine) -> None:
        job_id = run("sync", "user").stdout.strip()
        queue = Queue(engine)
        queue.claim("a", 30)
        queue.finish(job_id, "a", Outcome(0, {}))
        result = run("jobs", "cancel", job_id)
        assert result.exit_code == 1
        assert "done already" in result.stderr

    def test_followed(self, run: Run, engine: Engine, later: Callable[..., None]) -> None:
        job_id = run("sync", "user").stdout.strip()
        later(lambda: run_next(engine, lambda queue, id_: queue.finish(id_, "a", Outcome(1, {"events": 2}))))
        result = run("jobs", "show", job_id, "--follow")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["changed"] == {"events": 2}
