"""What names of licences, reasons and resources can be."""

from __future__ import annotations

import re
from datetime import datetime

from midstream.exhaust.dataset import RESOURCE_CHARS, TAGS, Dataset, resource_key
from midstream.registry.credentials import KEY_PATTERN
from midstream.registry.exhaust.errors import ExhaustError

MAX_REASON_CHARS = 1_000

_KEY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def canonical_licence_key(key: str) -> str | None:
    """Return a licence key, a UUID in any letter case, in lower case; None when it cannot be one."""
    folded = key.lower() if len(key) == 36 and key.isascii() else ""
    return folded if _KEY.fullmatch(folded) else None


def is_licence_name(name: str) -> bool:
    """Whether text can be a licence's name: no UUID, as a key is one."""
    return KEY_PATTERN.fullmatch(name) is not None and canonical_licence_key(name) is None


def check_licence_name(name: str) -> None:
    """Refuse what can be no name of a licence.

    Raises:
        ExhaustError: it has other characters, is too long, or reads as a key does.
    """
    if not is_licence_name(name):
        raise ExhaustError(
            "a licence's name takes 1 to 128 letters, digits and ._:@+=-, a letter or digit first, and is no UUID"
        )


def check_expiry(expires_at: datetime | None, now: datetime) -> None:
    """Refuse a moment that has passed.

    Raises:
        ExhaustError: it has.
    """
    if expires_at is not None and expires_at <= now:
        raise ExhaustError("the expiry has passed already")


def check_reason(reason: str) -> None:
    """Refuse what can be no reason of a revision.

    Raises:
        ExhaustError: it is empty, too long, or has characters that cannot be printed.
    """
    if not 0 < len(reason) <= MAX_REASON_CHARS or reason.isspace() or not reason.isprintable():
        raise ExhaustError(f"a reason takes 1 to {MAX_REASON_CHARS} printable characters")


def checked_resource(dataset: Dataset, resource: str) -> str:
    """Return the canonical key of a resource.

    Raises:
        ExhaustError: it cannot be one of this dataset.
    """
    key = resource_key(dataset, resource)
    if key is None:
        form = (
            "32 or 40 hex digits, of the SHA-1 of the partner's id"
            if dataset.resource == TAGS
            else f"1 to {RESOURCE_CHARS} letters, digits and ._:@+=~-, a letter, digit or _ first"
        )
        raise ExhaustError(f"a resource of {dataset.name} is named by {form}")
    return key
