from __future__ import annotations

from pathlib import Path

from deploy.local.supervisor_client import ProcessInfo
from deploy.local.watch import GIVEN_UP_DELAY_MAX_S, GIVEN_UP_DELAY_S, Watch, tail


class Fake:
    """A supervisor with one process, and a clock."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.now = 100.0
        self.said: list[str] = []
        self.started_at: list[float] = []
        self.dead: list[int] = []
        self.watch = Watch(self, self.said.append, self.dead.append, lambda: self.now)
        self._info = ProcessInfo("store", "STOPPED", 0, str(log))

    def processes(self) -> dict[str, ProcessInfo]:
        return {"store": self._info}

    def start(self, name: str) -> None:
        assert name == "store"
        self.started_at.append(self.now)

    def becomes(self, state: str, pid: int = 0, after_s: float = 0.5) -> list[str]:
        """Let the process be in a state, look, and return what was said."""
        self.now += after_s
        self._info = ProcessInfo("store", state, pid, str(self.log))
        before = len(self.said)
        self.watch.look()
        return self.said[before:]


def test_a_quiet_life_is_not_mentioned(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "log")
    for state, pid in (("STOPPED", 0), ("STARTING", 7), ("RUNNING", 7), ("RUNNING", 7)):
        assert fake.becomes(state, pid) == []
    assert fake.dead == []


def test_a_restart_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "store.log"
    log.write_text("one\n" * 100 + "cannot reach ClickHouse\n")
    fake = Fake(log)
    fake.becomes("RUNNING", 7)
    [line] = fake.becomes("STARTING", 8)
    assert "store ended and is started again" in line
    assert line.endswith("cannot reach ClickHouse")
    assert fake.dead == [7]
    assert fake.becomes("RUNNING", 8) == ["store runs again (pid 8)"]
    assert fake.becomes("RUNNING", 8) == []


def test_a_restart_between_two_looks_is_seen(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "log")
    fake.becomes("RUNNING", 7)
    assert len(fake.becomes("RUNNING", 8)) == 1
    assert fake.dead == [7]


def test_one_that_keeps_dying_does_not_flood_the_terminal(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "log")
    lines = []
    for pid in range(1, 101):
        lines += fake.becomes("STARTING", pid)
        lines += fake.becomes("BACKOFF")
    assert 5 <= len(lines) <= 11
    assert "times by now" in lines[-1]


def test_what_was_given_up_is_started_again_later_and_later(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "log")
    gaps = []
    for _ in range(5):
        fake.becomes("STARTING", 7)
        fake.becomes("BACKOFF")
        fake.becomes("FATAL")
        given_up, tries = fake.now, len(fake.started_at)
        while len(fake.started_at) == tries:
            fake.becomes("FATAL")
        gaps.append(fake.started_at[-1] - given_up)
    assert gaps == [GIVEN_UP_DELAY_S, 20.0, 40.0, GIVEN_UP_DELAY_MAX_S, GIVEN_UP_DELAY_MAX_S]


def test_a_good_life_resets_the_delay(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "log")
    for _ in range(2):
        fake.becomes("FATAL")
        fake.becomes("FATAL", after_s=GIVEN_UP_DELAY_S)
        fake.becomes("STARTING", 9)
        fake.becomes("RUNNING", 9, after_s=5)
    assert len(fake.started_at) == 2


def test_tail_of_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert tail(tmp_path / "none") == []
