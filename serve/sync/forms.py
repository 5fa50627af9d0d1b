"""Bodies that are forms, urlencoded or multipart: their fields as bytes."""

from __future__ import annotations

from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field as FormField
from python_multipart.multipart import File, FormParser, parse_options_header

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

_MAX_FIELDS = 32


class FormError(ValueError):
    """A body is not the form that its type says."""


def kind_of(content_type: str) -> str:
    """Return the type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def form_fields(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return a form's fields by name; of two with one name the first. A part that is a file is a field.

    Raises:
        FormError: it is no form, is cut short, or has too many fields.
    """
    if kind_of(content_type) == URLENCODED:
        try:
            pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
        except ValueError as error:
            raise FormError(str(error)) from None
    else:
        pairs = _parts(content_type, body)
    fields: dict[str, bytes] = {}
    for name, value in pairs:
        fields.setdefault(name.decode("utf-8", "replace"), value)
    return fields


def _parts(content_type: str, body: bytes) -> list[tuple[bytes, bytes]]:
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise FormError("its Content-Type names no boundary")
    found: list[tuple[bytes, bytes]] = []
    ended: list[bool] = []

    def take(name: bytes | None, value: bytes) -> None:
        if len(found) == _MAX_FIELDS:
            raise FormError(f"it has more than {_MAX_FIELDS} fields")
        found.append((name or b"", value))

    def take_field(part: FormField) -> None:
        take(part.field_name, part.value or b"")

    def take_file(part: File) -> None:
        part.file_object.seek(0)
        take(part.field_name, part.file_object.read())

    limits = {"MAX_MEMORY_FILE_SIZE": len(body) + 1, "UPLOAD_ERROR_ON_BAD_CTE": True}  # nothing goes to a disk
    try:
        parser = FormParser(
            MULTIPART, take_field, take_file, on_end=lambda: ended.append(True), boundary=boundary, config=limits
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise FormError(str(error)) from None
    if not ended:
        raise FormError("it is cut short")
    return found
