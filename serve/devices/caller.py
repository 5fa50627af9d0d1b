"""Which device calls: the access key as it is in ``Authorization``, without a scheme."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request, Security
from fastapi.security import APIKeyHeader

from serve.auth import see_rate
from serve.services import Services, services_of

# Only declares the scheme in the OpenAPI document.
_KEY = APIKeyHeader(
    name="Authorization",
    auto_error=False,
    scheme_name="device",
    description="The access key that registering gave, as it is.",
)


async def require_device(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    device_id: Annotated[str, Path(description="The device's id.")],
    _: Annotated[str | None, Security(_KEY)],
) -> str:
    """Let a device with its own key pass; return its id.

    Raises:
        UnknownKeyError: 401.
        NotAllowedError: 403.
        RegistryUnavailable: 503, it cannot be told now.
        ApiError: 429, more requests than one device may make.
    """
    await services.device_cache.authenticate(device_id, request.headers.get("authorization", ""))
    see_rate(services, f"device/{device_id}")
    return device_id


DeviceId = Annotated[str, Depends(require_device)]


def base_url(request: Request, services: Services) -> str:
    """Return the base URL that a device is told."""
    return (services.settings.public_url or str(request.base_url)).rstrip("/")
