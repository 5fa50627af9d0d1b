"""Under how many partitions the members of ``validate``'s group seal blocks: their ids in the group end in it."""

from __future__ import annotations

import re
from collections.abc import Collection

# What the coordinator makes of a client's, or a named instance's, id: "<id>-<uuid>".
_MEMBER = re.compile(r"-p(\d+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def sign(name: str, partitions: int) -> str:
    """Return the id of a client, or of a named instance, that seals under this number of partitions."""
    return f"{name}-p{partitions}"


def numbers_of(member_ids: Collection[str]) -> dict[str, int]:
    """Return the number of each member that says one."""
    found = ((id_, _MEMBER.search(id_)) for id_ in member_ids)
    return {id_: int(match[1]) for id_, match in found if match is not None}


def other_members(member_ids: Collection[str], partitions: int) -> list[str]:
    """Return those members that seal under another number."""
    return sorted(id_ for id_, number in numbers_of(member_ids).items() if number != partitions)
