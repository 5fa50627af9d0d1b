"""Licences: made, given rights, ended."""

from __future__ import annotations

import re
import sqlite3
import uuid
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from midstream.exhaust.dataset import Dataset
from midstream.registry.engine import open_engine
from midstream.registry.exhaust import licences as licences_module
from midstream.registry.exhaust.datasets import Datasets
from midstream.registry.exhaust.errors import ExhaustError, NotThereError, TakenError
from midstream.registry.exhaust.licences import LicenceRow, Licences
from midstream.settings import Settings

HASH = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
OTHER = "f" + HASH[1:]
MINE = [("D001", HASH)]
NOWHERE = uuid.UUID(int=7)


@pytest.fixture
def licences(engine: Engine) -> Licences:
    Datasets(engine).declare(Dataset("D002", "channel"))
    return Licences(engine)


def listed(licences: Licences) -> dict[str, LicenceRow]:
    return {one.name: one for one in licences.list(limit=100)}


def rights(licences: Licences, name: str) -> list[tuple[str, str]]:
    return [tuple(one) for one in listed(licences)[name].rights]


class TestCreate:
    def test_a_key_is_a_uuid_and_is_nowhere_in_the_registry(self, licences: Licences, settings: Settings) -> None:
        keys = {licences.create(f"partner-{number}", MINE) for number in range(20)}
        assert len(keys) == 20
        for key in keys:
            assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", key)
            assert key not in repr(licences.list(limit=100))
        if not settings.registry:
            with sqlite3.connect(settings.home / "registry.db") as connection:
                dump = "\n".join(connection.iterdump())
            assert "partner-19" in dump
            assert not any(key in dump for key in keys)

    def test_what_it_says_of_itself(self, licences: Licences) -> None:
        began = datetime.now(UTC)
        ends = began + timedelta(days=1)
        licences.create("b", [*MINE, ("D002", "c"), ("D001", OTHER)], ends)
        licences.create("a", [])
        assert list(listed(licences)) == ["a", "b"]
        one = listed(licences)["b"]
        assert [tuple(right) for right in one.rights] == [("D001", HASH), ("D001", OTHER), ("D002", "c")]
        assert began <= one.created_at <= datetime.now(UTC)
        assert (one.expires_at, one.revoked_at, one.last_used_at, one.state) == (ends, None, None, "active")
        assert listed(licences)["a"].rights == ()

    def test_a_name_is_taken_until_it_is_revoked(self, licences: Licences) -> None:
        first = licences.create("partner", [*MINE, ("D002", "c")])
        with pytest.raises(TakenError, match="revoke it first"):
            licences.create("partner", [("D001", OTHER)])
        assert rights(licences, "partner") == [*MINE, ("D002", "c")]
        licences.revoke("partner")
        second = licences.create("partner", [("D001", OTHER)])
        assert second != first
        assert rights(licences, "partner") == [("D001", OTHER)]
        assert listed(licences)["partner"].state == "active"
        with pytest.raises(NotThereError):
            licences.revoke(first)

    def test_of_several_at_once_one_is_made(self, licences: Licences, settings: Settings) -> None:
        def create(_: int) -> str | None:
            engine = open_engine(settings)
            try:
                return Licences(engine).create("partner", MINE)
            except TakenError:
                return None
            finally:
                engine.dispose()

        with ThreadPoolExecutor(8) as threads:
            keys = [key for key in threads.map(create, range(8)) if key]
        assert len(keys) == 1
        assert licences.revoke(keys[0]) == "partner"

    @pytest.mark.parametrize("name", ["", "a b", "-a", "a\0", "ä", "x" * 129, str(NOWHERE), str(NOWHERE).upper(), "\n"])
    def test_a_name_that_cannot_be(self, licences: Licences, name: str) -> None:
        with pytest.raises(ExhaustError, match="name"):
            licences.create(name, MINE)

    @pytest.mark.parametrize(
        ("right", "says"),
        [
            (("D003", HASH), "no dataset D003"),
            (("../D001", HASH), "no such dataset"),
            (("D001", "c"), "hex digits"),
            (("D001", HASH + "0"), "hex digits"),
            (("D002", "a/b"), "letters, digits"),
            (("D002", ".."), "letters, digits"),
        ],
    )
    def test_a_right_that_cannot_be_leaves_nothing(self, licences: Licences, right: tuple[str, str], says: str) -> None:
        with pytest.raises(ExhaustError, match=says):
            licences.create("partner", [*MINE, right])
        assert listed(licences) == {}
        licences.create("partner", MINE)
        with pytest.raises(ExhaustError, match=says):
            licences.grant("partner", [("D002", "c"), right])
        with pytest.raises(ExhaustError, match=says):
            licences.withdraw("partner", [*MINE, right])
        assert rights(licences, "partner") == MINE

    def test_an_expiry_that_has_passed(self, licences: Licences) -> None:
        with pytest.raises(ExhaustError, match="expiry"):
            licences.create("partner", MINE, datetime.now(UTC))

    def test_it_expires(self, licences: Licences, engine: Engine) -> None:
        licences.create("partner", MINE, datetime.now(UTC) + timedelta(days=1))
        with engine.begin() as connection:
            connection.execute(text("UPDATE exhaust_licences SET expires_at = '2026-01-01 00:00:00.000000'"))
        assert listed(licences)["partner"].state == "expired"
        with pytest.raises(TakenError):
            licences.create("partner", MINE)


class TestRights:
    def test_granted_and_withdrawn(self, licences: Licences) -> None:
        licences.create("partner", MINE)
        licences.create("another", MINE)
        assert licences.grant("partner", [*MINE, ("D001", OTHER), ("D002", "c")]) == 2
        assert licences.grant("partner", [("D002", "c")]) == 0
        assert rights(licences, "partner") == [("D001", HASH), ("D001", OTHER), ("D002", "c")]
        licences.withdraw("partner", [("D001", OTHER), *MINE])
        assert rights(licences, "partner") == [("D002", "c")]
        assert rights(licences, "another") == MINE
        with pytest.raises(NotThereError, match="no right"):
            licences.withdraw("partner", [("D002", "c"), *MINE])
        assert rights(licences, "partner") == [("D002", "c")]

    @pytest.mark.parametrize("first", [HASH, HASH[:32], HASH.upper(), HASH[:32].upper()])
    @pytest.mark.parametrize("second", [HASH, HASH[:32], HASH.upper(), HASH[:32].upper()])
    def test_a_hash_in_any_form_is_the_same(self, licences: Licences, first: str, second: str) -> None:
        licences.create("partner", [("D001", first)])
        assert rights(licences, "partner") == [("D001", first.lower())]
        assert licences.grant("partner", [("D001", second)]) == 0
        licences.withdraw("partner", [("D001", second)])
        assert rights(licences, "partner") == []

    def test_hashes_of_one_head_are_two(self, licences: Licences) -> None:
        tail = HASH[:32] + "f" * 8
        licences.create("partner", MINE)
        assert licences.grant("partner", [("D001", tail)]) == 1
        licences.withdraw("partner", [("D001", tail)])
        assert rights(licences, "partner") == MINE

    def test_words_have_letter_case_and_no_head(self, licences: Licences) -> None:
        licences.create("partner", [("D002", "c"), ("D002", HASH)])
        assert licences.grant("partner", [("D002", "C"), ("D002", HASH[:32])]) == 2
        licences.withdraw("partner", [("D002", "C"), ("D002", HASH[:32])])
        assert rights(licences, "partner") == [("D002", HASH), ("D002", "c")]

    def test_there_is_a_most(self, licences: Licences, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(licences_module, "_MAX_RIGHTS", 2)
        licences.create("partner", [*MINE, ("D002", "c")])
        assert licences.grant("partner", MINE) == 0
        with pytest.raises(ExhaustError, match="2 rights at the most"):
            licences.grant("partner", [("D002", "d")])
        licences.create("another", MINE)

    def test_of_a_licence_that_is_none(self, licences: Licences) -> None:
        licences.create("gone", MINE)
        licences.revoke("gone")
        for change in (licences.grant, licences.withdraw):
            with pytest.raises(NotThereError, match="no licence partner"):
                change("partner", MINE)
            with pytest.raises(ExhaustError, match="revoked"):
                change("gone", MINE)

    def test_the_same_granted_by_two_at_once(self, licences: Licences, engine: Engine) -> None:
        licences.create("partner", [])
        with ThreadPoolExecutor(1) as thread:
            with engine.begin() as connection:
                licence_id = licences_module._id_of(connection, "partner")
                assert licences_module._grant(connection, licence_id, "D001", HASH)
                second = thread.submit(licences.grant, "partner", [("D001", HASH[:32])])
                assert wait([second], timeout=0.5).not_done
            assert second.result(10) == 0
        assert rights(licences, "partner") == MINE


class TestRevoke:
    def test_by_name_or_key_in_any_case(self, licences: Licences) -> None:
        for number, shown in enumerate((str, str.upper, str.title)):
            key = licences.create(f"p{number}", MINE)
            assert licences.revoke(shown(key)) == f"p{number}"
        licences.create("by-name", MINE)
        assert licences.revoke("by-name") == "by-name"
        assert {one.state for one in listed(licences).values()} == {"revoked"}

    def test_again_changes_nothing(self, licences: Licences) -> None:
        key = licences.create("partner", MINE)
        licences.revoke(key)
        ended = listed(licences)["partner"].revoked_at
        assert licences.revoke("partner") == licences.revoke(key) == "partner"
        assert listed(licences)["partner"].revoked_at == ended
        assert rights(licences, "partner") == MINE

    @pytest.mark.parametrize("which", ["", "nobody", "PARTNER", "a\0", "\ud800", "x" * 100_000, str(NOWHERE)])
    def test_what_is_not_there_is_not_repeated(self, licences: Licences, which: str) -> None:
        licences.create("partner", MINE)
        with pytest.raises(NotThereError, match=r"^there is no licence of this (name|key)$"):
            licences.revoke(which)
        assert listed(licences)["partner"].state == "active"


def test_pages(licences: Licences) -> None:
    for name in ("c", "a", "b"):
        licences.create(name, [*MINE, ("D002", "c")])
    assert [one.name for one in licences.list(limit=2)] == ["a", "b"]
    assert [one.name for one in licences.list(after="b", limit=2)] == ["c"]
    assert all(len(one.rights) == 2 for one in licences.list(limit=2))
