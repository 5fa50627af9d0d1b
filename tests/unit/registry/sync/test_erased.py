"""What was erased, how far sources were read, and ids taken out of jobs."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from midstream.registry.errors import RegistryUnavailable
from midstream.registry.keyfile import key_path
from midstream.registry.sync.erased import ErasedIds
from midstream.registry.sync.erasures import Erasures
from midstream.registry.sync.forget import forget_id
from midstream.registry.sync.jobs import Jobs, Order
from midstream.registry.sync.queue import Outcome, Queue
from midstream.registry.sync.sources import Sources
from midstream.settings import Settings

from .conftest import Clock

LEASE_S = 30.0


class TestErasedIds:
    def test_twice_is_as_once(self, engine: Engine, clock: Clock) -> None:
        ids = ErasedIds(engine, clock)
        assert not ids.is_any()
        ids.add("d1", "user", "j1")
        at = clock.now
        clock.after(5)
        ids.add("d1", "user", "j2")
        assert ids.is_any()
        assert ids.since(None, 10) == (["d1"], at, True)

    def test_many_are_found_among_many(self, engine: Engine) -> None:
        ids = ErasedIds(engine)
        for number in range(0, 1_200, 3):
            ids.add(f"{number:024x}", "user", "j")
        asked = [f"{number:024x}" for number in range(1_300)]
        assert ids.among(asked) == set(asked[:1_200:3])
        assert ids.among([]) == set()

    def test_the_newest(self, engine: Engine, clock: Clock) -> None:
        ids = ErasedIds(engine, clock)
        for number in range(4):
            ids.add(f"d{number}", "user", "j")
            clock.after(10)
        assert ids.since(None, 2) == (["d3", "d2"], clock.after(-10), False)
        assert ids.since(clock.after(-10), 9).digests == ["d3", "d2"]
        assert ids.since(clock.after(100), 9) == ([], None, True)


class TestErasures:
    def test_of_one_type_and_one_key(self, engine: Engine, settings: Settings) -> None:
        erasures = Erasures(settings, engine)
        assert erasures.among("user", ["a", "b"]) == set()
        erasures.add(erasures.digest("user", "a"), "user", "j")
        assert erasures.among("user", ["a", "b"]) == {"a"}
        assert erasures.among("device", ["a"]) == set()
        with engine.connect() as connection:
            assert "'a'" not in str(connection.exec_driver_sql("SELECT * FROM erased").all())

    def test_without_the_key_it_cannot_be_told(self, engine: Engine, settings: Settings) -> None:
        Erasures(settings, engine).add("d", "user", "j")
        key_path(settings).unlink()
        with pytest.raises(RegistryUnavailable, match="missing"):
            Erasures(settings, engine).among("user", ["a"])


class TestForget:
    ID = 'né "x"\\'

    @pytest.fixture
    def jobs(self, engine: Engine, clock: Clock) -> Jobs:
        return Jobs(engine, clock)

    def test_in_whatever_job_it_was_named(self, engine: Engine, jobs: Jobs, clock: Clock) -> None:
        queue = Queue(engine, clock)
        ids = ("a", self.ID, f"{self.ID}y")
        done = jobs.create(Order("sync", "user", ids))[0].id
        queue.claim("o", LEASE_S)
        queue.finish(done, "o", Outcome(3, {}, dict.fromkeys(ids, True)))
        others = [jobs.create(Order("sync", type_, names))[0].id for type_, names in (("device", ids), ("user", None))]
        for job_id in others:
            jobs.cancel(job_id)
        waits = jobs.create(Order("sync", "user", ids))[0].id
        assert forget_id(engine, "user", self.ID, "erased-1") == 1
        assert jobs.ids_of(done) == ["a", "erased-1", f"{self.ID}y"]
        assert jobs.response_of(done) == {"a": True, "erased-1": True, f"{self.ID}y": True}
        assert jobs.ids_of(others[0]) == list(ids)
        assert jobs.ids_of(others[1]) is None
        assert jobs.ids_of(waits) == list(ids)  # it is still to be done, and finds that the object was erased
        assert forget_id(engine, "user", self.ID, "erased-1") == 0

    def test_it_can_be_stopped(self, engine: Engine, jobs: Jobs) -> None:
        jobs.cancel(jobs.create(Order("sync", "user", ("a",)))[0].id)

        def stop() -> None:
            raise InterruptedError

        with pytest.raises(InterruptedError):
            forget_id(engine, "user", "a", "p", stop)


def test_a_watermark_is_the_last_one(engine: Engine) -> None:
    sources = Sources(engine)
    assert sources.watermark("user") is None
    sources.note("user", "version:1")
    sources.note("device", "ms:7")
    sources.note("user", "version:2")
    assert (sources.watermark("user"), sources.watermark("device")) == ("version:2", "ms:7")
