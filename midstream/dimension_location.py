"""The location that an object's attributes declare."""

from __future__ import annotations

import orjson


def derive_location(type_: str, attributes: str) -> str:
    """Return the location that an object's attributes declare, as JSON text, or "".

    A user's ``state`` and ``district`` are the profile's; a device has ``userDeclaredLocation`` and ``ipLocation``,
    in this order.
    """
    if type_ not in ("user", "device") or not attributes:
        return ""
    try:
        parsed = orjson.loads(attributes)
    except orjson.JSONDecodeError:  # a number that only other readers take: the attributes stay, without a location
        return ""
    candidates = (
        ((parsed, "user-profile"),)
        if type_ == "user"
        else ((parsed.get("userDeclaredLocation"), "user-declared"), (parsed.get("ipLocation"), "ip-resolved"))
    )
    for place, source in candidates:
        if not isinstance(place, dict):
            continue
        state, district = (_text(place.get(part)) for part in ("state", "district"))
        if state or district:
            return orjson.dumps({"state": state, "district": district, "from": source}).decode()
    return ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
