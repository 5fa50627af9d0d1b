"""What ids, names, capabilities and slugs can be."""

from __future__ import annotations

import re
import unicodedata

from midstream.registry.academies.errors import AcademyError
from midstream.registry.academies.tables import CAPABILITY_CHARS, NAME_CHARS

MAX_ID = 2**63 - 1
MAX_SLUG_CHARS = 1_024
STATUSES = ("active", "inactive", "deleted")

_CAPABILITY = re.compile(rf"[A-Za-z][A-Za-z0-9_]{{0,{CAPABILITY_CHARS - 1}}}")
_UNPRINTABLE = frozenset(("Cc", "Cs", "Zl", "Zp"))  # control characters, lone surrogates, ends of lines


def is_id(number: int) -> bool:
    """Whether a number can be an id of an academy or a user: 1 to 2^63-1."""
    return 1 <= number <= MAX_ID


def is_slug(slug: str) -> bool:
    """Whether text can be an asset's slug: 1 to 1,024 characters that both databases take."""
    return 0 < len(slug) <= MAX_SLUG_CHARS and not any(one == "\0" or "\ud800" <= one <= "\udfff" for one in slug)


def check_id(what: str, number: int) -> None:
    """Refuse what can be no id.

    Raises:
        AcademyError: the number is not from 1 to 2^63-1.
    """
    if not is_id(number):
        raise AcademyError(f"the id of {what} is a number from 1 to 2^63-1")


def check_name(name: str) -> None:
    """Refuse what can be no name of an academy or a user.

    Raises:
        AcademyError: it is empty, longer than 256 characters, or has control characters.
    """
    if (
        not 0 < len(name) <= NAME_CHARS
        or name.isspace()
        or any(unicodedata.category(one) in _UNPRINTABLE for one in name)
    ):
        raise AcademyError(f"a name takes 1 to {NAME_CHARS} characters, none of them a control character")


def check_status(status: str) -> None:
    """Refuse what is no status of an academy.

    Raises:
        AcademyError: it is none.
    """
    if status not in STATUSES:
        raise AcademyError("an academy's status is active, inactive or deleted")


def check_capability(capability: str) -> None:
    """Refuse what can be no capability.

    Raises:
        AcademyError: it is no word such as crud_telemetry.
    """
    if _CAPABILITY.fullmatch(capability) is None:
        raise AcademyError(
            f"a capability is a word such as crud_telemetry: 1 to {CAPABILITY_CHARS} letters, digits and _, "
            "a letter first"
        )
