"""Academies, users, their tokens and grants."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, select

from midstream.registry.academies.academies import Academies
from midstream.registry.academies.errors import AcademyError, NotThereError, TakenError
from midstream.registry.academies.grants import Grants
from midstream.registry.academies.tables import UserToken
from midstream.registry.academies.users import Users, hash_token
from midstream.registry.models import Base

MAX_ID = 2**63 - 1


@pytest.fixture(params=[Academies, Users])
def counted(request: pytest.FixtureRequest, engine: Engine) -> Academies | Users:
    made: Academies | Users = request.param(engine)
    return made


def ids(counted: Academies | Users) -> list[int]:
    return [one.id for one in counted.page(limit=1_000)]


def test_migrations_make_what_the_tables_say(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


class TestIds:
    def test_counting_goes_on_above_the_highest_given(self, counted: Academies | Users) -> None:
        assert counted.create("a") == 1
        assert counted.create("b", 700) == 700
        assert counted.create("c") == 701
        assert counted.create("d", 5) == 5
        assert counted.create("e") == 702
        assert ids(counted) == [1, 5, 700, 701, 702]

    def test_taken_is_refused_and_changes_nothing(self, counted: Academies | Users) -> None:
        counted.create("first", 7)
        with pytest.raises(TakenError, match="7 already"):
            counted.create("second", 7)
        assert [one.name for one in counted.page(limit=10)] == ["first"]
        assert counted.create("third") == 8

    @pytest.mark.parametrize("id_", [0, -1, MAX_ID + 1, 10**40, -(2**63)])
    def test_what_cannot_be_is_refused(self, counted: Academies | Users, id_: int) -> None:
        with pytest.raises(AcademyError, match="1 to 2\\^63-1"):
            counted.create("a", id_)
        assert ids(counted) == []

    def test_the_highest_can_be_and_nothing_is_above_it(self, counted: Academies | Users) -> None:
        assert counted.create("a", MAX_ID) == MAX_ID
        with pytest.raises(AcademyError, match="no id is left"):
            counted.create("b")
        assert counted.create("c", 3) == 3

    def test_many_at_once_have_ids_of_their_own(self, counted: Academies | Users) -> None:
        together = threading.Barrier(6)
        made: list[int] = []

        def create() -> None:
            together.wait()
            made.extend(counted.create("x") for _ in range(5))

        threads = [threading.Thread(target=create) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(made) == list(range(1, 31)) == ids(counted)

    def test_of_two_that_give_the_same_one_is_refused(self, counted: Academies | Users) -> None:
        together = threading.Barrier(4)
        outcomes: list[str] = []

        def create() -> None:
            together.wait()
            try:
                counted.create("x", 9)
                outcomes.append("made")
            except TakenError:
                outcomes.append("taken")

        threads = [threading.Thread(target=create) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["made", "taken", "taken", "taken"]

    def test_pages(self, counted: Academies | Users) -> None:
        for number in range(1, 8):
            counted.create(f"n{number}")
        assert [one.id for one in counted.page(limit=3)] == [1, 2, 3]
        assert [one.id for one in counted.page(after=3, limit=3)] == [4, 5, 6]
        assert counted.page(after=MAX_ID, limit=3) == []


class TestNames:
    @pytest.mark.parametrize("name", ["", " ", "a\0b", "\n", "a\x1b[31m", "\ud800", "x" * 257, "a\u2028b"])
    def test_what_cannot_be_is_refused(self, counted: Academies | Users, name: str) -> None:
        with pytest.raises(AcademyError, match="a name takes"):
            counted.create(name)
        assert ids(counted) == []

    @pytest.mark.parametrize("name", ["Miami", "Académie 学院", "क्षत्रिय\u200d", "x" * 256, "a\u00a0b", "😀"])
    def test_what_can_be_comes_back(self, counted: Academies | Users, name: str) -> None:
        counted.create(name)
        counted.create(name)  # names are not unique
        assert [one.name for one in counted.page(limit=5)] == [name, name]


class TestStatus:
    def test_set(self, engine: Engine) -> None:
        academies = Academies(engine)
        academies.create("a")
        assert academies.page(limit=1)[0].status == "active"
        for status in ("inactive", "deleted", "active"):
            academies.set_status(1, status)
            assert academies.page(limit=1)[0].status == status

    def test_refused(self, engine: Engine) -> None:
        academies = Academies(engine)
        academies.create("a")
        with pytest.raises(NotThereError, match="no academy 2"):
            academies.set_status(2, "active")
        with pytest.raises(AcademyError, match="active, inactive or deleted"):
            academies.set_status(1, "closed")
        with pytest.raises(AcademyError, match="id"):
            academies.set_status(2**63, "active")


class TestTokens:
    def test_only_the_hash_is_kept(self, engine: Engine) -> None:
        users = Users(engine)
        users.create("ada")
        token = users.create_token(1)
        assert len(token) == 43
        assert users.create_token(1) != token
        with engine.connect() as connection:
            rows = connection.execute(select(UserToken.__table__)).all()
        assert hash_token(token) in [row.token_hash for row in rows]
        assert token.encode() not in repr(rows).encode()

    def test_states(self, engine: Engine) -> None:
        users = Users(engine)
        users.create("ada")
        users.create("bob")
        users.create_token(1)
        users.create_token(1, datetime.now(UTC) + timedelta(days=1))
        users.create_token(2)
        assert [one.state for one in users.tokens(1)] == ["active", "active"]
        assert users.revoke_tokens(1) == 2
        assert users.revoke_tokens(1) == 0
        assert [one.state for one in users.tokens(1)] == ["revoked", "revoked"]
        assert [one.state for one in users.tokens(2)] == ["active"]
        assert users.tokens(1)[1].expires_at is not None

    def test_refused(self, engine: Engine) -> None:
        users = Users(engine)
        users.create("ada")
        with pytest.raises(AcademyError, match="passed"):
            users.create_token(1, datetime.now(UTC))
        for call in (users.create_token, users.tokens, users.revoke_tokens):
            with pytest.raises(NotThereError, match="no user 2"):
                call(2)
            for id_ in (0, -1, 2**63):
                with pytest.raises(AcademyError, match="id"):
                    call(id_)


class TestGrants:
    @pytest.fixture
    def grants(self, engine: Engine) -> Grants:
        for name in ("a", "b"):
            Academies(engine).create(name)
            Users(engine).create(name)
        return Grants(engine)

    def test_grant_list_revoke(self, grants: Grants) -> None:
        assert grants.grant(1, 2, "crud_telemetry")
        assert not grants.grant(1, 2, "crud_telemetry")
        assert grants.grant(1, 2, "read_telemetry")
        assert grants.grant(2, 1, "read_telemetry")
        everything = [(1, 2, "crud_telemetry"), (1, 2, "read_telemetry"), (2, 1, "read_telemetry")]
        assert grants.list(limit=10) == everything
        assert grants.list(limit=2) == everything[:2]
        assert grants.list(user_id=1, limit=10) == everything[:2]
        assert grants.list(academy_id=1, limit=10) == everything[2:]
        grants.revoke(1, 2, "crud_telemetry")
        assert grants.list(limit=10) == everything[1:]
        with pytest.raises(NotThereError, match="does not have crud_telemetry"):
            grants.revoke(1, 2, "crud_telemetry")

    def test_refused(self, grants: Grants) -> None:
        with pytest.raises(NotThereError, match="no user 3"):
            grants.grant(3, 1, "x")
        with pytest.raises(NotThereError, match="no academy 3"):
            grants.grant(1, 3, "x")
        for user, academy in ((0, 1), (1, 0), (2**63, 1), (1, -1)):
            with pytest.raises(AcademyError, match="id"):
                grants.grant(user, academy, "x")
        for capability in ("", "a b", "a\0", "é", "1a", "x" * 65, "crud_telemetry\n"):
            with pytest.raises(AcademyError, match="a capability is a word"):
                grants.grant(1, 1, capability)
        assert grants.list(limit=10) == []
