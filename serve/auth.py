"""Who may call: dependencies that the routes name."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from midstream.registry.admin_log import Actor, act_as
from midstream.registry.auth import Principal
from serve.errors import ApiError
from serve.services import Services, services_of

# Only declares the scheme in the OpenAPI document: the header itself is read by the authenticator.
_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    bearerFormat="JWT",
    description="A token of `midstream token create NAME [--role operator]`.",
)


async def require_principal(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    _: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
) -> Principal:
    """Let any active credential pass.

    Raises:
        Unauthorized: no token or a bad one.
        RegistryUnavailable: it cannot be told now.
        ApiError: 429, more requests than one credential may make.
    """
    principal = await services.authenticator.authenticate(request.headers.get("authorization"))
    see_rate(services, principal.key)
    return principal


def see_rate(services: Services, credential: str) -> None:
    """Count a request of a credential that is proven.

    Raises:
        ApiError: 429, it is one too many.
    """
    wait_s = services.rates.retry_after_s(credential)
    if wait_s:
        raise ApiError(429, "RATE_LIMITED", "too many requests with this credential", retry_after_s=wait_s)


async def require_operator(request: Request, principal: Annotated[Principal, Depends(require_principal)]) -> Principal:
    """Let only an operator's credential pass.

    Raises:
        ApiError: 403 for an app's.
    """
    if principal.role != "operator":
        raise ApiError(403, "FORBIDDEN", "this needs an operator's token")
    return act_as_operator(request, principal)


def act_as_operator(request: Request, principal: Principal) -> Principal:
    """Have the admin log name this operator for what the request does; return the operator."""
    act_as(Actor("credential", principal.key, request.client.host if request.client else ""))
    return principal
