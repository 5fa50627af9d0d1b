"""Who calls, for which academy, and what about: the checks that come before a body is read, in the contract's order."""

from __future__ import annotations

from typing import NamedTuple

from fastapi import Request
from fastapi.security import APIKeyHeader

from midstream.registry.academies.access import Access
from midstream.registry.academies.errors import InvalidTokenError, NotProvidedError
from serve.assignments import refused

CRUD = "crud_telemetry"
"""May write and read the academy's records."""
READ = "read_telemetry"
"""May read them."""
OWN = "own_telemetry"
"""May send telemetry of one's own."""

_MAY_READ = frozenset((CRUD, READ))
_MAY_SEND_OWN = frozenset((CRUD, READ, OWN))
_MAX_DIGITS = 40  # far beyond every id there is, far below what takes long to read

# Only declares the scheme in the OpenAPI document.
TOKEN = APIKeyHeader(
    name="Authorization",
    scheme_name="user token",
    description="`Token TOKEN`, with a token of `midstream user token ID`.",
    auto_error=False,
)


class Caller(NamedTuple):
    """A user, in an academy where the user may do what is asked."""

    user_id: int
    academy_id: int


async def user_of(request: Request, access: Access) -> int:
    """Return the user whose token came with a request.

    Raises:
        RefusedError: 401.
        RegistryUnavailable: it cannot be told now.
    """
    try:
        return await access.user_of(request.headers.get("authorization"))
    except NotProvidedError:
        raise refused.not_provided() from None
    except InvalidTokenError:
        raise refused.invalid_token() from None


async def writer_of(request: Request, access: Access) -> Caller:
    """Return who may write the academy's records.

    Raises:
        RefusedError: 401, 400 or 403.
        RegistryUnavailable: it cannot be told now.
    """
    user_id = await user_of(request, access)
    return await _caller(access, user_id, _academy_named(request), CRUD, frozenset((CRUD,)))


async def viewer_of(request: Request, access: Access) -> Caller:
    """Return who may read one of the academy's records: whoever may write it, or read all. See :func:`writer_of`."""
    user_id = await user_of(request, access)
    return await _caller(access, user_id, _academy_named(request), CRUD, _MAY_READ)


async def reader_of(request: Request, access: Access) -> Caller:
    """Return who may read all of the academy's records. See :func:`writer_of`."""
    user_id = await user_of(request, access)
    return await _caller(access, user_id, _academy_named(request), READ, _MAY_READ)


async def learner_of(request: Request, access: Access) -> Caller:
    """Return who sends telemetry of his own; the academy need not be named where the user is in one alone.

    Raises:
        RefusedError: 401, 400 or 403.
        RegistryUnavailable: it cannot be told now.
    """
    user_id = await user_of(request, access)
    named = _named(request)
    academy_id = await access.only_academy(user_id) if named is None else _academy_named(request)
    if not isinstance(academy_id, int):  # in none, or in several
        raise refused.missing_academy()
    return await _caller(access, user_id, academy_id, OWN, _MAY_SEND_OWN)


def _named(request: Request) -> str | None:
    said = request.headers.get("academy")
    return request.query_params.get("academy") if said is None else said


def _academy_named(request: Request) -> int:
    said = _named(request)
    if said is None:
        raise refused.missing_academy()
    number = _number(said.strip())
    if number is None:
        raise refused.academy_no_number(said)
    return number


async def _caller(access: Access, user_id: int, academy_id: int, capability: str, enough: frozenset[str]) -> Caller:
    status = await access.standing(user_id, academy_id, enough)
    if status is None:
        raise refused.no_capability(user_id, capability, academy_id)
    if status == "deleted":
        raise refused.academy_deleted()
    if status != "active":
        raise refused.academy_inactive()
    return Caller(user_id, academy_id)


def user_id_of(said: str) -> int:
    """Return the user that a path names; 0, which nobody is, for what is no number that a user has."""
    return _number(said) or 0


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None
