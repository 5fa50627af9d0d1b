"""Who asks and what they may do: right within a second, or not said at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, event

from midstream.registry.academies import access as access_module
from midstream.registry.academies.academies import Academies
from midstream.registry.academies.access import SEVERAL, Access
from midstream.registry.academies.errors import InvalidTokenError, NotProvidedError
from midstream.registry.academies.grants import Grants
from midstream.registry.academies.records import Found, Records, Wanted
from midstream.registry.academies.users import Users
from midstream.registry.errors import RegistryUnavailable
from midstream.settings import Settings

WITHIN_S = 1.0
BEYOND = [0, -1, 2**63, -(2**63), 10**40]
AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
async def access(settings: Settings, engine: Engine) -> AsyncIterator[Access]:
    opened = Access(settings)
    yield opened
    opened.close()


@pytest.fixture
def users(engine: Engine) -> Users:
    users = Users(engine)
    for name in ("ada", "bob"):
        users.create(name)
    return users


@pytest.fixture
def grants(engine: Engine, users: Users) -> Grants:
    for name in ("a", "b"):
        Academies(engine).create(name)
    return Grants(engine)


def entries(kind: str) -> float:
    return REGISTRY.get_sample_value("midstream_academy_cache_entries", {"kind": kind}) or 0.0


def count_reads(access: Access) -> list[str]:
    """Return a list that grows with each statement."""
    statements: list[str] = []
    for engine in (access._reads.engine, access._reads._instant):
        if engine is not None:
            event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: statements.append(statement))
    return statements


class TestUserOf:
    @pytest.mark.parametrize("form", ["Token {}", "token {}", "TOKEN {}", " Token  {} ", "Token\t{}"])
    async def test_a_token(self, access: Access, users: Users, form: str) -> None:
        assert await access.user_of(form.format(users.create_token(2))) == 2

    @pytest.mark.parametrize(
        "header", [None, "", " ", "Bearer x", "Tokenx", "Basic dXNlcjpwYXNz", "x Token y", "Tokén x"]
    )
    async def test_none_or_another_scheme(self, access: Access, header: str | None) -> None:
        with pytest.raises(NotProvidedError):
            await access.user_of(header)

    @pytest.mark.parametrize(
        "header", ["Token", "token ", "Token x", "Token \0", "Token \udcff", "Token " + "x" * 99_999]
    )
    async def test_no_token(self, access: Access, header: str) -> None:
        with pytest.raises(InvalidTokenError):
            await access.user_of(header)

    async def test_more_than_one_word(self, access: Access, users: Users) -> None:
        token = users.create_token(1)
        for header in (f"Token {token} {token}", f"Token {token} x", f"Token \xa0{token}", f"Token {token}\0"):
            with pytest.raises(InvalidTokenError):
                await access.user_of(header)

    async def test_a_revoked_one_ends_within_a_second_in_every_process(
        self, settings: Settings, access: Access, users: Users
    ) -> None:
        other = Access(settings)
        header, bobs = f"Token {users.create_token(1)}", f"Token {users.create_token(2)}"
        for process in (access, other):
            assert await process.user_of(header) == 1
        users.revoke_tokens(1)
        await asyncio.sleep(WITHIN_S)
        for process in (access, other):
            with pytest.raises(InvalidTokenError):
                await process.user_of(header)
            assert await process.user_of(bobs) == 2
        other.close()

    async def test_it_ends_with_its_expiry(self, access: Access, users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(access_module, "_REMEMBER_S", 3_600.0)
        expires_at = datetime.now(UTC) + timedelta(seconds=1.5)
        header = f"Token {users.create_token(1, expires_at)}"
        assert await access.user_of(header) == 1
        assert await access.user_of(header) == 1
        await asyncio.sleep((expires_at - datetime.now(UTC)).total_seconds() + 0.05)
        with pytest.raises(InvalidTokenError):
            await access.user_of(header)

    async def test_it_is_remembered(self, access: Access, users: Users) -> None:
        header = f"Token {users.create_token(1)}"
        reads = count_reads(access)
        for _ in range(20):
            assert await access.user_of(header) == 1
        assert len([text for text in reads if "academy_user_tokens" in text]) == 1

    async def test_a_new_token_is_good_at_once(self, access: Access, users: Users) -> None:
        users.revoke_tokens(1)
        for _ in range(3):
            assert await access.user_of(f"Token {users.create_token(1)}") == 1


class TestStanding:
    async def test_by_capability(self, access: Access, grants: Grants) -> None:
        grants.grant(1, 1, "crud_telemetry")
        grants.grant(1, 2, "read_telemetry")
        assert await access.standing(1, 1, ["crud_telemetry"]) == "active"
        assert await access.standing(1, 1, ("read_telemetry", "crud_telemetry")) == "active"
        assert await access.standing(1, 1, ["read_telemetry"]) is None
        assert await access.standing(1, 2, ["crud_telemetry"]) is None
        assert await access.standing(2, 1, ["crud_telemetry"]) is None
        assert await access.standing(1, 3, ["crud_telemetry"]) is None
        assert await access.standing(1, 1, []) is None

    @pytest.mark.parametrize("id_", BEYOND)
    async def test_ids_that_cannot_be(self, access: Access, grants: Grants, id_: int) -> None:
        reads = count_reads(access)
        assert await access.standing(1, id_, ["crud_telemetry"]) is None
        assert await access.standing(id_, 1, ["crud_telemetry"]) is None
        assert await access.only_academy(id_) is None
        assert await access.user_exists(id_) is False
        assert await access.record(id_, "a", 1) is None
        assert await access.record(1, "a", id_) is None
        assert reads == []

    async def test_every_change_is_seen_within_a_second(self, access: Access, grants: Grants, engine: Engine) -> None:
        academies = Academies(engine)
        steps: list[tuple[Callable[[], Any], str | None]] = [
            (lambda: None, None),
            (lambda: grants.grant(1, 1, "crud_telemetry"), "active"),
            (lambda: academies.set_status(1, "inactive"), "inactive"),
            (lambda: academies.set_status(1, "deleted"), "deleted"),
            (lambda: grants.revoke(1, 1, "crud_telemetry"), None),
        ]
        for change, status in steps:
            change()
            await asyncio.sleep(WITHIN_S)
            assert await access.standing(1, 1, ["crud_telemetry"]) == status

    async def test_it_is_remembered(self, access: Access, grants: Grants) -> None:
        grants.grant(1, 1, "crud_telemetry")
        reads = count_reads(access)
        for _ in range(20):
            assert await access.standing(1, 1, ["crud_telemetry"]) == "active"
            assert await access.standing(2, 1, ["crud_telemetry"]) is None
            assert await access.only_academy(1) == 1
        assert len([text for text in reads if "academy_grants" in text]) == 3


async def test_the_only_academy(access: Access, grants: Grants, engine: Engine) -> None:
    assert await access.only_academy(1) is None
    await asyncio.sleep(WITHIN_S)
    grants.grant(1, 2, "read_telemetry")
    grants.grant(1, 2, "crud_telemetry")
    grants.grant(2, 1, "crud_telemetry")
    assert await access.only_academy(1) == 2
    grants.grant(1, 1, "anything")
    await asyncio.sleep(WITHIN_S)
    assert await access.only_academy(1) is SEVERAL
    assert await access.only_academy(2) == 1
    assert await access.only_academy(3) is None


async def test_whether_a_user_exists(access: Access, users: Users) -> None:
    assert await access.user_exists(2)
    assert not await access.user_exists(3)
    users.create("eve")
    assert await access.user_exists(3)  # at once: a user that was not there is asked for again
    reads = count_reads(access)
    assert await access.user_exists(3)
    assert reads == []


async def test_records(access: Access, engine: Engine) -> None:
    records = Records(engine)
    assert await access.record(1, "intro", 1) is None
    made = records.reserve([Wanted(1, "intro", 1, 1, AT)])[0]
    assert await access.record(1, "intro", 1) == Found(made.id, AT, False)
    records.confirm([made.id])
    assert await access.record(1, "intro", 1) == Found(made.id, AT, True)
    reads = count_reads(access)
    assert await access.record(1, "intro", 1) == Found(made.id, AT, True)
    assert reads == []
    assert await access.record(1, "other", 1) is None
    assert await access.record(1, "a\0b", 1) is None


async def test_what_is_remembered_is_bounded_and_counted(
    settings: Settings, grants: Grants, users: Users, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "_MAX_REMEMBERED", 3)
    kinds = ("token", "standing", "only_academy", "user", "record")
    before = {kind: entries(kind) for kind in kinds}
    records = Records(engine)
    access = Access(settings)
    for number in range(6):
        user = users.create("x")
        (made,) = records.reserve([Wanted(1, "intro", user, 1, AT)])
        records.confirm([made.id])
        assert await access.user_of(f"Token {users.create_token(user)}") == user
        assert await access.standing(user, 1, ["crud_telemetry"]) is None
        assert await access.only_academy(user) is None
        assert await access.user_exists(user)
        assert await access.record(1, "intro", user)
        with pytest.raises(InvalidTokenError):
            await access.user_of(f"Token nobodys{number}")
    assert {kind: entries(kind) - before[kind] for kind in kinds} == dict.fromkeys(kinds, 3)
    access.close()
    assert {kind: entries(kind) for kind in kinds} == before


ASKED: list[Callable[[Access], Coroutine[Any, Any, Any]]] = [
    lambda access: access.user_of("Token x"),
    lambda access: access.standing(1, 1, ["crud_telemetry"]),
    lambda access: access.only_academy(1),
    lambda access: access.user_exists(1),
    lambda access: access.record(1, "a", 1),
]


@pytest.mark.parametrize("ask", ASKED)
async def test_without_its_registry_nobody_is_told_no(
    settings: Settings, ask: Callable[[Access], Coroutine[Any, Any, Any]]
) -> None:
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/none" if settings.registry else "sqlite:////no/such/folder/r.db"
    away = settings.model_copy(update={"registry": nowhere})
    access = Access(away)
    with pytest.raises(RegistryUnavailable):
        await ask(access)
    access.close()
