"""What is known of a device, and what a registration makes of it. Pure.

Attributes are JSON texts by name: a value that nobody gives anew stays as it was written, to the byte.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

USER_DECLARED = "userDeclaredLocation"
FROM_IP = "ipLocation"

Attributes = dict[str, bytes]

_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()


class Row(NamedTuple):
    """A device's row."""

    attributes: Attributes
    version: int
    """-1 when there is no row."""
    deleted: bool = False
    """Then it has no attributes."""


NO_ROW = Row({}, -1)


class Published(NamedTuple):
    """A row that this process published, and that may yet be followed by one that does not know of it."""

    before: Attributes
    """What it was made upon."""
    given: Attributes
    """What was said of the device, by one registration or several."""
    row: Row
    at_s: float
    """When it was published, by ``time.monotonic()``."""
    seen_s: float | None = None
    """When ClickHouse was first seen to have it, or a later one that lacks nothing of it."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        return sum(
            len(name) + len(value)
            for attributes in (self.before, self.given, self.row.attributes)
            for name, value in attributes.items()
        )


class Base(NamedTuple):
    """What a registration is made upon."""

    row: Row
    lost: Attributes
    """Of ``row.attributes``: what another's row lacks and must be written again."""
    seen: bool
    """Whether ClickHouse has the published row or a later one."""


def read_attributes(text: str) -> Attributes:
    """Return the attributes of a row.

    Raises:
        msgspec.DecodeError: the text is no JSON object.
    """
    return {name: bytes(value) for name, value in _object_decoder.decode(text).items()}


def write_attributes(attributes: Attributes) -> bytes:
    """Return attributes as JSON text."""
    return _encoder.encode({name: msgspec.Raw(value) for name, value in attributes.items()})


def encode_location(state: str, district: str) -> bytes:
    """Return a location as an attribute."""
    return _encoder.encode({"state": state, "district": district})


def location_of(attributes: Attributes, name: str) -> dict[str, str] | None:
    """Return a location as a profile shows it, both keys there; None when neither a state nor a district is known."""
    try:
        found = msgspec.json.decode(attributes.get(name, b"null"))
    except msgspec.DecodeError:
        return None
    if not isinstance(found, dict):
        return None
    state, district = (value if isinstance(value := found.get(key), str) else "" for key in ("state", "district"))
    return {"state": state, "district": district} if state or district else None


def base_of(found: Row, published: Published | None) -> Base:
    """Return what is known of a device, from ClickHouse's row and the one that is on its way there.

    A row of another process may have been made before it could know of ours. What it has as it was before ours, and
    ours had changed, it lacks: it is put back. What it changed itself stays. Who deletes a device means all of it.
    """
    if published is None:
        return Base(found, {}, True)
    if found.version < published.row.version:
        return Base(published.row, {}, False)
    if found.deleted:
        return Base(found, {}, True)
    before = published.before
    lost = {
        name: value
        for name, value in published.given.items()
        if before.get(name) != value and found.attributes.get(name) == before.get(name)
    }
    return Base(found._replace(attributes=found.attributes | lost), lost, True)
