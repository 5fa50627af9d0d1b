"""Signed links: who holds one can download a request's archive for some hours, without the licence's key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from midstream.registry.keyfile import Cipher
from midstream.settings import Settings

LINK = timedelta(hours=6)
"""How long a link can be followed; each time that a request is read it has a new one."""
MAX_TOKEN_CHARS = 1_000

_PURPOSE = "exhaust-request"  # the same key keeps other secrets: none of them may be taken for a link


class Links:
    """Makes links' tokens, and tells whose they are. They are encrypted and authenticated."""

    def __init__(self, settings: Settings) -> None:
        self._cipher = Cipher(settings)

    def token(self, request_id: str, until: datetime) -> str:
        """Return the token of a request that is good until a moment.

        Raises:
            RegistryUnavailable: the key file is missing or is none.
        """
        return self._cipher.encrypt(f"{_PURPOSE} {request_id} {int(until.timestamp())}").decode()

    def opens(self, token: str, request_id: str, now: datetime) -> bool:
        """Whether a token is one of this request, and is good now.

        Raises:
            RegistryUnavailable: the key file is missing or is none.
        """
        if not 0 < len(token) <= MAX_TOKEN_CHARS or not token.isascii():
            return False
        said = self._cipher.read(token.encode())
        parts = said.split(" ") if said is not None else []
        if len(parts) != 3 or parts[:2] != [_PURPOSE, request_id] or not parts[2].isdecimal():
            return False
        return now < datetime.fromtimestamp(int(parts[2]), UTC)
