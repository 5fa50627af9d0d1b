"""What a registration says, read from its body. Pure.

Members that are not named here are passed over, as Sunbird's own service does it: what its clients send besides
(``channel``, codes of a location) does not become part of events. ``ext`` is checked and passed over too: ``userid`` is
personal, and both of its members only served experiments. A null is as good as absent: that is how a client writes a
number that it does not know.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from midstream.dimensions import DimensionError, compact_object
from serve.register.attributes import USER_DECLARED, Attributes, encode_location

MAX_BODY_BYTES = 64 * 1024
"""Largest body, as sent and inflated: what it says becomes part of every event of the device."""

_PLACE = re.compile(r" - at `\$(.*)`$")
_DIGITS = re.compile(r"[0-9]{1,16}", re.ASCII)

_Text = Annotated[str, Meta(max_length=256)]
_Token = Annotated[str, Meta(max_length=4096)]
_EpochMs = Annotated[int, Meta(ge=0, le=2**53)]


class BodyError(ValueError):
    """A body that cannot be taken.

    Attributes:
        code: ``INVALID_JSON``, ``INVALID_UTF8``, ``TOO_DEEP`` or ``INVALID_REQUEST``.
        pointer: JSON pointer to what is wrong, "" for the body as a whole.
    """

    def __init__(self, code: str, message: str, pointer: str = "") -> None:
        super().__init__(f"{pointer}: {message}" if pointer else message)
        self.code = code
        self.pointer = pointer


class Said(NamedTuple):
    """What a registration says."""

    given: Attributes
    ip_address: str
    """As it was given, "" when none was. Not part of what is kept."""
    msgid: str | None


class _Location(msgspec.Struct):
    state: _Text | None = None
    district: _Text | None = None


class _Ext(msgspec.Struct):
    userid: str | None = None
    url: str | None = None


class _Request(msgspec.Struct, rename={"fcm_token": "fcmToken", "location": USER_DECLARED}):
    did: str | None = None
    producer: _Text | None = None
    dspec: msgspec.Raw = msgspec.Raw(b"null")
    uaspec: msgspec.Raw = msgspec.Raw(b"null")
    fcm_token: _Token | None = None
    first_access: _EpochMs | str | None = None
    ip_addr: _Text | None = None
    ext: _Ext | None = None
    location: _Location | None = None


class _Params(msgspec.Struct):
    msgid: _Text | None = None


class _Body(msgspec.Struct):
    request: _Request
    id: str | None = None
    ver: str | None = None
    params: _Params | None = None


_decoder = msgspec.json.Decoder(_Body)
_encoder = msgspec.json.Encoder()


def read_body(body: bytes, did: str) -> Said:
    """Return what a body says of the device ``did``, which the path names.

    Raises:
        BodyError: it cannot be taken; a ``did`` of another device too, since either may be the wrong one.
    """
    parsed = _decode(body)
    request = parsed.request
    if request.did is not None and request.did != did:
        raise BodyError("INVALID_REQUEST", "the path names another device", "/request/did")
    given: Attributes = {}
    for name in ("dspec", "uaspec"):
        text = bytes(getattr(request, name))
        if text != b"null":
            given[name] = _compact(text, f"/request/{name}")
    if request.producer:
        given["producer"] = _encoder.encode(request.producer)
    if request.fcm_token:
        given["fcmToken"] = _encoder.encode(request.fcm_token)
    if request.first_access is not None:
        given["first_access"] = _encoder.encode(_epoch_ms(request.first_access))
    location = request.location
    if location is not None:
        state, district = (location.state or "").strip(), (location.district or "").strip()
        if state or district:
            given[USER_DECLARED] = encode_location(state, district)
    return Said(given, request.ip_addr or "", parsed.params.msgid if parsed.params else None)


def _decode(body: bytes) -> _Body:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BodyError("INVALID_UTF8", "the body is not UTF-8") from None
    try:
        parsed = _decoder.decode(text)
        # msgspec takes the last of two values, and passes over the texts of what it does not keep.
        json.loads(text, object_pairs_hook=_refuse_repeated_keys, parse_int=str)
    except RecursionError:
        raise BodyError("TOO_DEEP", "the body is nested too deeply") from None
    except msgspec.ValidationError as error:
        message = str(error)
        found = _PLACE.search(message)
        pointer = found[1].replace(".", "/") if found else ""
        if "missing required field `request`" in message:
            pointer = "/request"
        raise BodyError("INVALID_REQUEST", _PLACE.sub("", message), pointer) from None
    except (msgspec.DecodeError, json.JSONDecodeError) as error:
        raise BodyError("INVALID_JSON", f"the body is not JSON: {error}") from None
    return parsed


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise BodyError("INVALID_JSON", f"the key {name[:100]!r} stands twice in one object")
        seen.add(name)


def _compact(text: bytes, pointer: str) -> bytes:
    try:
        return compact_object(text, MAX_BODY_BYTES).encode()
    except DimensionError as error:
        if error.code == "NOT_AN_OBJECT":
            raise BodyError("INVALID_REQUEST", "Expected `object`", pointer) from None
        raise BodyError(error.code, str(error).removeprefix("attributes ").removeprefix("are "), pointer) from None


def _epoch_ms(value: int | str) -> int:
    if isinstance(value, int):
        return value
    if _DIGITS.fullmatch(value) is None:
        raise BodyError("INVALID_REQUEST", "Expected epoch milliseconds", "/request/first_access")
    return int(value)
