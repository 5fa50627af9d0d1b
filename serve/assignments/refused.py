"""Refusals in the words that learning platforms know. Their clients compare them."""

from __future__ import annotations

from typing import Any

from serve.openapi import MEANINGS


def replies(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route for these statuses."""
    detail = {"type": "object", "properties": {"detail": {"type": "string"}, "status_code": {"type": "integer"}}}
    by_field = {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}
    return {
        status: {
            "description": MEANINGS[status],
            "content": {"application/json": {"schema": {"anyOf": [by_field, detail]} if status == 400 else detail}},
        }
        for status in statuses
    }


class RefusedError(Exception):
    """Ends a request with a status and a JSON body."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers or {}


_SCHEME = {"WWW-Authenticate": "Token"}


def not_provided() -> RefusedError:
    """No token, or another scheme."""
    body = {"detail": "Authentication credentials were not provided.", "status_code": 401}
    return RefusedError(401, body, _SCHEME)


def invalid_token() -> RefusedError:
    """A token that is nobody's, or has ended."""
    body = {"error": "Invalid or Inactive Token", "is_authenticated": "False", "status_code": 401}
    return RefusedError(401, body, _SCHEME)


def missing_academy() -> RefusedError:
    """No academy is named."""
    return _detail(403, "Missing academy_id parameter expected for the endpoint url or 'Academy' header")


def academy_no_number(said: str) -> RefusedError:
    """What names the academy is no number."""
    return _detail(400, f"Academy ID needs to be an integer: {said[:100]}")


def no_capability(user_id: int, capability: str, academy_id: int) -> RefusedError:
    """The user may not do this there, or there is no such academy."""
    return _detail(
        403, f"You (user: {user_id}) don't have this capability: {capability} for academy {str(academy_id)[:100]}"
    )


def academy_deleted() -> RefusedError:
    """The academy was deleted."""
    return _detail(403, "This academy is deleted")


def academy_inactive() -> RefusedError:
    """The academy is not active."""
    return _detail(403, "This academy is not active")


def no_user(said: str) -> RefusedError:
    """There is no such user."""
    return _detail(404, f"User with id {said[:100]} not found", slug="user-not-found")


def no_record(asset_slug: str, said: str) -> RefusedError:
    """There is no such record."""
    message = f"Assignment telemetry not found for asset {asset_slug[:1_100]} and user {said[:100]}"
    return _detail(404, message, slug="telemetry-not-found")


def bad_fields(errors: dict[str, list[str]]) -> RefusedError:
    """Messages by field, or by parameter."""
    return RefusedError(400, errors)


def _detail(status: int, message: str, **more: str) -> RefusedError:
    return RefusedError(status, {"detail": message, "status_code": status, **more})
