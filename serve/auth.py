"""Who may call: dependencies that the routes name."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

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
    """
    return await services.authenticator.authenticate(request.headers.get("authorization"))


async def require_operator(principal: Annotated[Principal, Depends(require_principal)]) -> Principal:
    """Let only an operator's credential pass.

    Raises:
        ApiError: 403 for an app's.
    """
    if principal.role != "operator":
        raise ApiError(403, "FORBIDDEN", "this needs an operator's token")
    return principal
