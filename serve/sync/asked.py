"""What a request for a sync asks for: from a body of any of its three forms to an order, or a refusal that names the
place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from midstream.dimensions import DimensionError, DimensionType, check_id
from midstream.registry.sync.jobs import Order
from serve.errors import ApiError
from serve.sync.envelope import BAD_SHAPE, NO_JSON, NO_TYPE, UNKNOWN_TYPE
from serve.sync.forms import MULTIPART, URLENCODED, FormError, form_fields, kind_of

OPTIONS = ("full", "force")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for.

    Attributes:
        order: of the job.
        waits: whether the reply tells what became of each id.
    """

    order: Order
    waits: bool


def read_asked(content_type: str, body: bytes, max_ids: int) -> Asked:
    """Read a body.

    Raises:
        ApiError: 400, with the code of the contract.
    """
    if kind_of(content_type) in (URLENCODED, MULTIPART):
        request = _of_form(content_type, body)
    else:
        said = _json(body, "the body")
        if not isinstance(said, dict):
            raise _bad_shape("the body is no object")
        request = said.get("request", {})
    if not isinstance(request, dict):
        raise _bad_shape("request is no object")
    type_ = _type_of(request.get("objectType"))
    operation = request.get("operationType")
    if operation not in (None, "", "sync"):
        raise _bad_shape('request.operationType is "sync" or absent')
    options = {}
    for name in OPTIONS:
        option = request.get(name, False)
        if not isinstance(option, bool):
            raise _bad_shape(f"request.{name} is true or false")
        options[name] = option
    ids = _ids_of(request.get("objectIds"), max_ids)
    return Asked(Order("sync", type_, ids, options), operation == "sync")


def _of_form(content_type: str, body: bytes) -> Any:
    try:
        text = form_fields(content_type, body).get("request")
    except FormError as error:
        raise ApiError(400, NO_JSON, f"the body is not the form that its Content-Type says: {error}") from None
    return {} if text is None else _json(text, "the field request")


def _json(text: bytes, what: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except UnicodeDecodeError:
        raise ApiError(400, NO_JSON, f"{what} is not UTF-8") from None
    except msgspec.DecodeError as error:
        raise ApiError(400, NO_JSON, f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise ApiError(400, NO_JSON, f"{what} is nested too deeply") from None


def _type_of(said: Any) -> DimensionType:
    if said is None or said == "":
        raise ApiError(400, NO_TYPE, "request.objectType is missing")
    if not isinstance(said, str):
        raise _bad_shape("request.objectType is no text")
    try:
        return DimensionType(said)
    except ValueError:
        raise ApiError(400, UNKNOWN_TYPE, "Invalid Object Type.") from None


def _ids_of(said: Any, max_ids: int) -> tuple[str, ...] | None:
    """Return each id once, in order; None for all of the type."""
    if said is None or said == []:
        return None
    if not isinstance(said, list):
        raise _bad_shape("request.objectIds is no list of texts")
    if len(said) > max_ids:
        raise _bad_shape(f"request.objectIds has {len(said)} ids; at most {max_ids} are taken at once")
    for index, id_ in enumerate(said):
        if not isinstance(id_, str):
            raise _bad_shape(f"request.objectIds[{index}] is no text")
        try:
            check_id(id_)
        except DimensionError as error:
            raise _bad_shape(f"request.objectIds[{index}]: {error}") from None
    return tuple(dict.fromkeys(said))


def _bad_shape(message: str) -> ApiError:
    return ApiError(400, BAD_SHAPE, message)
