"""Datasets and revisions in the registry."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine, insert

from midstream.exhaust.dataset import D001, TAGS, Condition, Dataset
from midstream.registry.engine import open_engine
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.exhaust import datasets as datasets_module
from midstream.registry.exhaust.datasets import Datasets
from midstream.registry.exhaust.errors import ExhaustError, NotThereError
from midstream.registry.exhaust.licences import Licences
from midstream.registry.exhaust.revisions import Revisions
from midstream.registry.exhaust.tables import DeclaredDataset, Revision
from midstream.settings import Settings

HASH = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
BY_CHANNEL = Dataset("D002", "channel", (Condition("eid", "in", ("START",)),), ("mid", "raw"), 30)
DAY = date(2026, 1, 31)


@pytest.fixture
def datasets(engine: Engine) -> Datasets:
    return Datasets(engine)


@pytest.fixture
def revisions(engine: Engine) -> Revisions:
    return Revisions(engine)


class TestDeclare:
    def test_d001_is_there(self, datasets: Datasets) -> None:
        assert list(datasets.list()) == [D001]
        assert datasets.get("D001") == D001

    def test_created_then_unchanged_then_changed(self, datasets: Datasets) -> None:
        assert datasets.declare(BY_CHANNEL) == "created"
        assert datasets.declare(BY_CHANNEL) == "unchanged"
        assert datasets.get("D002") == BY_CHANNEL
        longer = replace(BY_CHANNEL, retention_days=60)
        assert datasets.declare(longer) == "changed"
        assert datasets.get("D002") == longer
        assert list(datasets.list()) == [D001, longer]

    def test_the_default_can_be_declared_otherwise_and_back(self, datasets: Datasets) -> None:
        assert datasets.declare(D001) == "unchanged"
        mine = replace(D001, retention_days=90)
        assert datasets.declare(mine) == "changed"
        assert list(datasets.list()) == [mine]
        assert datasets.declare(D001) == "changed"
        assert list(datasets.list()) == [D001]

    def test_names_have_letter_case(self, datasets: Datasets) -> None:
        datasets.declare(BY_CHANNEL)
        datasets.declare(replace(BY_CHANNEL, name="d002", retention_days=1))
        assert datasets.get("D002").retention_days == 30
        assert datasets.get("d002").retention_days == 1
        with pytest.raises(NotThereError, match="no dataset d001"):
            datasets.get("d001")

    @pytest.mark.parametrize("name", ["", "D003", "../D001", "D001\0", "D001\n", "%", "ä", "x" * 100_000, "\ud800"])
    def test_none_of_a_name(self, datasets: Datasets, name: str) -> None:
        with pytest.raises(NotThereError, match=r"^there is no .*dataset( D003)?$"):
            datasets.get(name)

    def test_another_rule_while_there_are_rights(self, datasets: Datasets, engine: Engine) -> None:
        """The same text would name somebody else."""
        datasets.declare(BY_CHANNEL)
        licences = Licences(engine)
        licences.create("partner", [("D002", "c")])
        other = replace(BY_CHANNEL, resource="did")
        with pytest.raises(ExhaustError, match="another rule than did"):
            datasets.declare(other)
        assert datasets.declare(replace(BY_CHANNEL, columns=())) == "changed"
        licences.withdraw("partner", [("D002", "c")])
        assert datasets.declare(other) == "changed"

    def test_there_is_a_most(self, datasets: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(datasets_module, "_MAX_DATASETS", 2)
        for name in ("A", "B"):
            datasets.declare(replace(BY_CHANNEL, name=name))
        with pytest.raises(ExhaustError, match="2 datasets already"):
            datasets.declare(replace(BY_CHANNEL, name="C"))
        assert datasets.declare(replace(BY_CHANNEL, name="B", columns=())) == "changed"

    def test_several_at_once(self, settings: Settings, datasets: Datasets) -> None:
        def declare(number: int) -> str:
            engine = open_engine(settings)
            try:
                return Datasets(engine).declare(replace(BY_CHANNEL, retention_days=number % 2))
            finally:
                engine.dispose()

        with ThreadPoolExecutor(8) as threads:
            outcomes = list(threads.map(declare, range(16)))
        assert outcomes.count("created") == 1
        assert datasets.get("D002").retention_days in (0, 1)

    def test_a_declaration_of_another_version_is_no_dataset(self, datasets: Datasets, engine: Engine) -> None:
        with engine.begin() as connection:
            row = {"name": "D002", "declaration": {"name": "D002", "later": 1}, "declared_at": datetime.now(UTC)}
            connection.execute(insert(DeclaredDataset), row)
        for ask in (datasets.list, lambda: datasets.get("D002")):
            with pytest.raises(RegistryUnavailable, match="another version"):
                ask()
        assert datasets.get("D001") == D001


class TestRevisions:
    def test_of_days_oldest_first(self, revisions: Revisions) -> None:
        began = datetime.now(UTC)
        assert revisions.of(D001, HASH, DAY, DAY) == {}
        assert revisions.add(D001, None, DAY, DAY + timedelta(days=2), "first") == 3
        assert revisions.add(D001, HASH, DAY, DAY, "second") == 1
        found = revisions.of(D001, HASH, DAY - timedelta(days=9), DAY + timedelta(days=1))
        assert list(found) == [DAY, DAY + timedelta(days=1)]
        assert [one.reason for one in found[DAY]] == ["first", "second"]
        assert [one.reason for one in found[DAY + timedelta(days=1)]] == ["first"]
        numbers = [one.number for one in found[DAY]]
        assert numbers == sorted(set(numbers))
        assert all(began <= one.at <= datetime.now(UTC) for one in found[DAY])

    def test_of_one_resource_by_either_form(self, revisions: Revisions) -> None:
        other_tail = HASH[:32] + "f" * 8
        revisions.add(D001, HASH.upper(), DAY, DAY, "by 40")
        revisions.add(D001, HASH[:32], DAY, DAY, "by 32")
        revisions.add(D001, "f" + HASH[1:], DAY, DAY, "another")

        def reasons(key: str) -> list[str]:
            return [one.reason for one in revisions.of(D001, key, DAY, DAY).get(DAY, ())]

        assert reasons(HASH) == ["by 40", "by 32"]
        assert reasons(HASH[:32]) == ["by 40", "by 32"]
        assert reasons(other_tail) == ["by 32"]
        assert reasons("0" * 40) == []

    def test_of_another_dataset_or_rule(self, revisions: Revisions) -> None:
        revisions.add(BY_CHANNEL, HASH, DAY, DAY, "a channel")
        revisions.add(BY_CHANNEL, "abc", DAY, DAY, "another")
        assert revisions.of(D001, HASH, DAY, DAY) == {}
        assert [one.reason for one in revisions.of(BY_CHANNEL, HASH, DAY, DAY)[DAY]] == ["a channel"]
        assert revisions.of(BY_CHANNEL, HASH[:32], DAY, DAY) == {}
        assert revisions.of(BY_CHANNEL, "ab", DAY, DAY) == {}
        assert revisions.of(BY_CHANNEL, "abcd", DAY, DAY) == {}

    @pytest.mark.parametrize("reason", ["", " ", "x" * 1_001, "a\nb", "\0", "\x1b[2J", "\ud800"])
    def test_a_reason_that_cannot_be(self, revisions: Revisions, reason: str) -> None:
        with pytest.raises(ExhaustError, match="reason"):
            revisions.add(D001, None, DAY, DAY, reason)
        assert revisions.of(D001, HASH, DAY, DAY) == {}

    @pytest.mark.parametrize("resource", ["", "c", HASH + "0", "%", "0" * 31 + "%"])
    def test_a_resource_that_cannot_be(self, revisions: Revisions, resource: str) -> None:
        with pytest.raises(ExhaustError, match="resource of D001"):
            revisions.add(D001, resource, DAY, DAY, "r")

    def test_days_that_cannot_be(self, revisions: Revisions) -> None:
        for last in (DAY - timedelta(days=1), DAY + timedelta(days=3_660)):
            with pytest.raises(ExhaustError, match="1 to 3660 days"):
                revisions.add(D001, None, DAY, last, "r")
        assert revisions.add(Dataset("D", TAGS), None, DAY, DAY + timedelta(days=3_659), "r") == 3_660
        assert len(revisions.of(Dataset("D", TAGS), HASH, date.min, date.max)) == 3_660

    def test_numbers_are_seen_in_their_order(self, engine: Engine, revisions: Revisions) -> None:
        """Or a build that has seen the higher one would never see the lower."""
        row = {"dataset": "D001", "day": DAY, "reason": "first", "at": datetime.now(UTC)}
        with ThreadPoolExecutor(1) as thread:
            with engine.begin() as connection:
                connection.execute(insert(Revision), row)
                second = thread.submit(revisions.add, D001, None, DAY, DAY, "second")
                assert wait([second], timeout=0.5).not_done
            assert second.result(10) == 1
        assert [one.reason for one in revisions.of(D001, HASH, DAY, DAY)[DAY]] == ["first", "second"]
