"""Who may operate the fleet: whoever has an operator's token. Any other credential is none here."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from midstream.registry.auth import Principal
from midstream.registry.errors import Unauthorized
from serve.auth import act_as_operator, require_principal
from serve.objects import sought


async def require_fleet_operator(
    request: Request, principal: Annotated[Principal, Depends(require_principal)]
) -> Principal:
    """Let only an operator's credential pass.

    Raises:
        Unauthorized: it is an app's.
    """
    if principal.role != "operator":
        raise Unauthorized("the credential is no operator's")
    return act_as_operator(request, principal)


def device_of_path(device_id: Annotated[str, Path(description="The device's id.")]) -> str:
    """Return the id that the path names."""
    return sought(device_id)


DeviceId = Annotated[str, Depends(device_of_path)]
