"""Whether what proves somebody is taken now: a credential, or a user's token."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

State = Literal["active", "expired", "revoked"]


def state_of(revoked_at: datetime | None, expires_at: datetime | None) -> State:
    """Return the state by when it was ended, and when it ends by itself."""
    if revoked_at is not None:
        return "revoked"
    if expires_at is not None and expires_at <= datetime.now(UTC):
        return "expired"
    return "active"
