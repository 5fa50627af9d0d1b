"""Who asks and what they may have: right within a second, or not said at all."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, event, text

from midstream.exhaust.dataset import D001, TAGS, Dataset
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.exhaust import access as access_module
from midstream.registry.exhaust import uses as uses_module
from midstream.registry.exhaust.access import ExhaustAccess, LicenceInfo
from midstream.registry.exhaust.datasets import Datasets
from midstream.registry.exhaust.errors import LoginError
from midstream.registry.exhaust.licences import Licences
from midstream.registry.exhaust.locks import lock
from midstream.registry.exhaust.revisions import Revisions
from midstream.registry.exhaust.tables import Licence
from midstream.settings import Settings

WITHIN_S = 1.0
HASH = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
TAIL = HASH[:32] + "f" * 8
DAY = date(2026, 1, 31)
BY_CHANNEL = Dataset("D002", "channel")


@pytest.fixture
async def access(settings: Settings, engine: Engine) -> AsyncIterator[ExhaustAccess]:
    opened = ExhaustAccess(settings)
    yield opened
    opened.close()


@pytest.fixture
def licences(engine: Engine) -> Licences:
    Datasets(engine).declare(BY_CHANNEL)
    return Licences(engine)


@pytest.fixture
def key(licences: Licences) -> str:
    return licences.create("partner", [("D001", HASH), ("D002", "c")])


def entries(kind: str) -> float:
    return REGISTRY.get_sample_value("midstream_exhaust_cache_entries", {"kind": kind}) or 0.0


def count_statements(*engines: Engine | None) -> list[str]:
    """Return a list that grows with each statement."""
    statements: list[str] = []
    for engine in engines:
        if engine is not None:
            event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: statements.append(statement))
    return statements


def count_reads(access: ExhaustAccess) -> list[str]:
    return count_statements(access._reads.engine, access._reads._instant)


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


class TestLicenceOf:
    async def test_a_key_in_any_letter_case(self, access: ExhaustAccess, key: str) -> None:
        for form in (key, key.upper(), key.title()):
            assert (await access.licence_of(form)).name == "partner"

    @pytest.mark.parametrize(
        "wrong",
        [
            None, "", " ", "x", "\0", "\ud800", "partner", str(uuid.UUID(int=7)), "{KEY}", "KEY ", " KEY", "KEY\n",
            "urn:uuid:KEY", "HEX", "x" * 1_000_000, "\uff10" * 36,
        ],
    )  # fmt: skip
    async def test_no_key(self, access: ExhaustAccess, key: str, wrong: str | None) -> None:
        given = wrong and wrong.replace("KEY", key).replace("HEX", key.replace("-", ""))
        with pytest.raises(LoginError) as caught:
            await access.licence_of(given)
        assert key not in caught.value.reason

    async def test_a_revoked_one_ends_within_a_second_in_every_process(
        self, settings: Settings, access: ExhaustAccess, licences: Licences, key: str
    ) -> None:
        other = ExhaustAccess(settings)
        for process in (access, other):
            assert (await process.licence_of(key)).name == "partner"
        licences.revoke("partner")
        again = licences.create("partner", [])
        await asyncio.sleep(WITHIN_S)
        for process in (access, other):
            with pytest.raises(LoginError):
                await process.licence_of(key)
            assert (await process.licence_of(again)).name == "partner"
        licences.revoke(again)
        await asyncio.sleep(WITHIN_S)
        with pytest.raises(LoginError, match="revoked"):
            await access.licence_of(again)
        other.close()

    async def test_it_ends_with_its_expiry(
        self, access: ExhaustAccess, licences: Licences, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(access_module, "_REMEMBER_S", 3_600.0)
        expires_at = datetime.now(UTC) + timedelta(seconds=1.5)
        key = licences.create("short", [], expires_at)
        for _ in range(2):
            assert (await access.licence_of(key)).name == "short"
        await asyncio.sleep((expires_at - datetime.now(UTC)).total_seconds() + 0.05)
        with pytest.raises(LoginError, match="expired"):
            await access.licence_of(key)

    async def test_it_is_remembered_and_what_is_nobodys_is_not(self, access: ExhaustAccess, licences: Licences) -> None:
        key = licences.create("a", [])
        before, reads = entries("licence"), count_reads(access)
        for _ in range(20):
            await access.licence_of(key)
        assert len([one for one in reads if "exhaust_licences" in one]) == 1
        for number in range(20):
            with pytest.raises(LoginError):
                await access.licence_of(str(uuid.UUID(int=number)))
        assert entries("licence") == before + 1


async def test_a_licence_by_its_id_as_it_is_now(access: ExhaustAccess, licences: Licences, key: str) -> None:
    licence = await access.licence_of(key)
    assert await access.licence_by_id(licence.id) == licence
    short = await access.licence_of(licences.create("short", [], datetime.now(UTC) + timedelta(seconds=0.5)))
    licences.revoke(key)
    for gone in (licence.id, licence.id + 100):
        with pytest.raises(LoginError):
            await access.licence_by_id(gone)
    await asyncio.sleep(0.5)
    with pytest.raises(LoginError, match="expired"):
        await access.licence_by_id(short.id)


class TestDatasetFor:
    @pytest.fixture
    async def partner(self, access: ExhaustAccess, key: str) -> LicenceInfo:
        return await access.licence_of(key)

    async def test_what_it_may_have(self, access: ExhaustAccess, partner: LicenceInfo) -> None:
        assert await access.dataset_for(partner, "D001", HASH) == (D001, HASH)
        assert await access.dataset_for(partner, "D001", HASH.upper()) == (D001, HASH)
        assert await access.dataset_for(partner, "D001", HASH[:32].upper()) == (D001, HASH[:32])
        assert await access.dataset_for(partner, "D002", "c") == (BY_CHANNEL, "c")

    @pytest.mark.parametrize(
        ("name", "resource"),
        [
            ("D001", TAIL), ("D001", "f" + HASH[1:]), ("D001", HASH + "0"), ("D001", "c"), ("D001", ""),
            ("D001", f"../{HASH}"), ("D001", HASH + "\0"), ("D001", "_" * 32), ("D001", "%" * 32),
            ("D002", "C"), ("D002", "d"), ("D002", HASH), ("D002", ".."), ("D002", "c\0"), ("D002", "\ud800"),
            ("D003", HASH), ("d001", HASH), ("D001\0", HASH), ("../D001", HASH), ("", HASH), ("x" * 100_000, HASH),
        ],
    )  # fmt: skip
    async def test_what_it_may_not_have(
        self, access: ExhaustAccess, partner: LicenceInfo, name: str, resource: str
    ) -> None:
        for _ in range(2):
            assert await access.dataset_for(partner, name, resource) is None

    async def test_a_right_by_32_digits_is_to_all_that_they_name(
        self, access: ExhaustAccess, licences: Licences
    ) -> None:
        by_32 = await access.licence_of(licences.create("by-32", [("D001", HASH[:32])]))
        for resource in (HASH, TAIL, HASH[:32]):
            assert await access.dataset_for(by_32, "D001", resource) == (D001, resource)

    async def test_of_another_licence(self, access: ExhaustAccess, licences: Licences, partner: LicenceInfo) -> None:
        other = await access.licence_of(licences.create("other", [("D002", "d")]))
        assert await access.dataset_for(partner, "D002", "c") is not None
        assert await access.dataset_for(other, "D002", "c") is None
        assert await access.dataset_for(other, "D001", HASH) is None

    async def test_every_change_is_seen_within_a_second(
        self, settings: Settings, engine: Engine, access: ExhaustAccess, licences: Licences, partner: LicenceInfo
    ) -> None:
        other = ExhaustAccess(settings)

        async def both(name: str, resource: str) -> object:
            first, second = [await process.dataset_for(partner, name, resource) for process in (access, other)]
            assert first == second
            return first

        assert await both("D001", HASH)
        assert await both("D002", "d") is None
        assert await both("D003", "c") is None
        changed = replace(D001, columns=("mid",))
        Datasets(engine).declare(changed)
        Datasets(engine).declare(new := Dataset("D003", "channel"))
        licences.grant("partner", [("D002", "d"), ("D003", "c")])
        licences.withdraw("partner", [("D002", "c")])
        await asyncio.sleep(WITHIN_S)
        assert await both("D001", HASH) == (changed, HASH)
        assert await both("D002", "d") == (BY_CHANNEL, "d")
        assert await both("D002", "c") is None
        assert await both("D003", "c") == (new, "c")
        other.close()

    async def test_a_right_by_another_rule_is_none(
        self, access: ExhaustAccess, engine: Engine, licences: Licences, partner: LicenceInfo
    ) -> None:
        """As could be while a dataset is declared anew: the same text names somebody else."""
        with engine.begin() as connection:
            connection.execute(text("UPDATE exhaust_rights SET rule = 'did' WHERE dataset = 'D002'"))
        assert await access.dataset_for(partner, "D002", "c") is None

    async def test_it_is_remembered_both_ways(self, access: ExhaustAccess, partner: LicenceInfo) -> None:
        before = {kind: entries(kind) for kind in ("dataset", "right")}
        reads = count_reads(access)
        for _ in range(20):
            assert await access.dataset_for(partner, "D001", HASH)
            assert await access.dataset_for(partner, "D001", TAIL) is None
            assert await access.dataset_for(partner, "D009", TAIL) is None
        assert {kind: entries(kind) - before[kind] for kind in before} == {"dataset": 2, "right": 2}
        assert len([one for one in reads if "exhaust" in one]) == 4
        access.close()
        assert {kind: entries(kind) for kind in before} == before

    async def test_there_is_a_most(
        self, settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, partner: LicenceInfo
    ) -> None:
        monkeypatch.setattr(access_module, "_MAX_DATASETS", 5)
        monkeypatch.setattr(access_module, "_MAX_REMEMBERED", 7)
        bounded = ExhaustAccess(settings)
        before = {kind: entries(kind) for kind in ("dataset", "right")}
        for number in range(20):
            assert await bounded.dataset_for(partner, f"X{number}", HASH) is None
            assert await bounded.dataset_for(partner, "D002", f"x{number}") is None
        assert {kind: entries(kind) - before[kind] for kind in before} == {"dataset": 5, "right": 7}
        bounded.close()


async def test_revisions_are_seen_at_once(access: ExhaustAccess, engine: Engine) -> None:
    assert await access.revisions(D001, HASH, DAY, DAY) == {}
    Revisions(engine).add(D001, HASH[:32], DAY, DAY, "erased")
    found = await access.revisions(D001, HASH, DAY, DAY)
    assert found == Revisions(engine).of(D001, HASH, DAY, DAY)
    assert [one.reason for one in found[DAY]] == ["erased"]
    assert await access.revisions(Dataset("D009", TAGS), HASH, DAY, DAY) == {}


class TestNoteUse:
    @staticmethod
    def last_use(licences: Licences) -> datetime | None:
        (one,) = licences.list(limit=2)
        return one.last_used_at

    async def test_it_is_written_once_a_minute(
        self, access: ExhaustAccess, licences: Licences, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        licence = await access.licence_of(key)
        statements = count_statements(access._uses._engine)
        began = datetime.now(UTC)
        for _ in range(50):
            access.note_use(licence)
        await until(lambda: self.last_use(licences) is not None)
        first = self.last_use(licences)
        assert first is not None
        assert began <= first <= datetime.now(UTC)
        assert len([one for one in statements if "UPDATE" in one]) == 1
        monkeypatch.setattr(uses_module, "_EVERY_S", 0.0)
        access.note_use(licence)
        await until(lambda: self.last_use(licences) != first)

    async def test_another_process_within_the_minute_changes_nothing(
        self, settings: Settings, access: ExhaustAccess, licences: Licences, key: str
    ) -> None:
        licence = await access.licence_of(key)
        access.note_use(licence)
        await until(lambda: self.last_use(licences) is not None)
        first = self.last_use(licences)
        other = ExhaustAccess(settings)
        statements = count_statements(other._uses._engine)
        other.note_use(licence)
        await until(lambda: len(statements) > 0)
        other._uses._thread.shutdown(wait=True)
        other.close()
        assert self.last_use(licences) == first

    async def test_what_cannot_be_written_fails_nobody(
        self,
        settings: Settings,
        engine: Engine,
        licences: Licences,
        key: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(uses_module, "_TIMEOUT_MS", 100)
        access = ExhaustAccess(settings)
        licence = await access.licence_of(key)
        printed: list[str] = []

        def is_logged() -> bool:
            printed.append(capsys.readouterr().out)
            return "licence.use_not_written" in "".join(printed)

        with engine.begin() as connection:
            lock(connection, Licence)
            began = time.monotonic()
            access.note_use(licence)
            assert time.monotonic() - began < 0.05
            await until(is_logged)
        assert key not in "".join(printed)
        assert self.last_use(licences) is None
        monkeypatch.setattr(uses_module, "_EVERY_S", 0.0)
        access.note_use(licence)
        await until(lambda: self.last_use(licences) is not None)
        access.close()
        access.note_use(licence)  # after the end

    async def test_what_waits_and_what_is_remembered_is_bounded(
        self, access: ExhaustAccess, engine: Engine, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uses_module, "_MAX_REMEMBERED", 10)
        with engine.begin() as connection:
            lock(connection, Licence)
            for number in range(500):
                access.note_use(LicenceInfo(10**6 + number, "nobody"))
            assert access._uses._thread._work_queue.qsize() in (uses_module._MAX_WAITING - 1, uses_module._MAX_WAITING)
        assert len(access._uses._noted) == 10
        await until(lambda: access._uses._thread._work_queue.qsize() == 0)
        licence = await access.licence_of(key)
        access.note_use(licence)  # there is room again
        assert licence.id in access._uses._noted


async def test_a_registry_that_is_away_is_said_so(settings: Settings, engine: Engine, key: str) -> None:
    access = ExhaustAccess(settings)
    licence = await access.licence_of(key)
    assert await access.dataset_for(licence, "D001", HASH)
    await asyncio.sleep(WITHIN_S)
    with engine.begin() as connection:
        for name in ("requests", "rights", "licences", "datasets", "revisions"):
            connection.execute(text(f"DROP TABLE exhaust_{name}"))
    for ask in (
        access.licence_of(key),
        access.licence_by_id(licence.id),
        access.dataset_for(licence, "D001", HASH),
        access.revisions(D001, HASH, DAY, DAY),
    ):
        with pytest.raises(RegistryUnavailable):
            await ask
    access.close()
