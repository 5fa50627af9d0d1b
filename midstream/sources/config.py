"""The file of dimension sources: TOML, one table a type of objects. See ``docs/dimension-sources.md``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, model_validator

from midstream.dimensions import DimensionType
from midstream.settings import KIB, MIB
from midstream.sources.errors import config_error
from midstream.sources.rows import Fields, TimeUnit
from midstream.sources.secrets import Hider, expand, read_secret_file

_MAX_FILE_BYTES = 1 * MIB
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_SAFE = {chr(code) for code in range(0x20, 0x7F)} | {"\t"}

Name = Annotated[str, Field(min_length=1, max_length=256)]
Pointer = Annotated[str, Field(pattern=r"^(/.*)?$", max_length=1024, description="A JSON pointer.")]


class _Model(BaseModel):
    """Strict, and silent about what was given: it may be a secret."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class _Source(_Model):
    """What every kind of source has."""

    read_timeout_ms: int = Field(3_600_000, ge=1, le=86_400_000)


class _TimedSource(_Source):
    """A source whose rows have a version, or a time of change, of their own where it says so."""

    updated_at_unit: TimeUnit = "timestamp"
    overlap_ms: int = Field(300_000, ge=0, le=86_400_000)


class FileConfig(_Source):
    """A file of JSON lines or CSV, gzipped or not, or a folder of such files."""

    kind: Literal["file"]
    path: Name


class NextUrl(_Model):
    """The body names the address of the next page."""

    style: Literal["next_url"]
    pointer: Pointer


class LinkHeader(_Model):
    """The header ``Link`` names the next page, as ``rel="next"``."""

    style: Literal["link_header"]


class Cursor(_Model):
    """The body names a cursor, which is a parameter of the next request."""

    style: Literal["cursor"]
    pointer: Pointer
    parameter: Name


class PageNumber(_Model):
    """Pages are numbered; the first one without rows is the end."""

    style: Literal["page"]
    parameter: Name
    first: int = Field(1, ge=0)


Paging = Annotated[NextUrl | LinkHeader | Cursor | PageNumber, Field(discriminator="style")]


class HttpConfig(_TimedSource):
    """An HTTP endpoint that is read by GET."""

    kind: Literal["http"]
    url: SecretStr
    bearer_token: SecretStr | None = None
    headers: dict[str, SecretStr] = {}
    format: Literal["json", "jsonl"] = "json"
    rows: Pointer = ""
    id_field: Name = "id"
    version_field: str = ""
    updated_at_field: str = ""
    attributes_field: str = ""
    deleted_field: str = ""
    paging: Paging | None = None
    ids_parameter: str = ""
    ids_separator: str = Field(",", max_length=8)
    ids_per_request: int = Field(100, ge=1, le=10_000)
    since_parameter: str = ""
    request_timeout_ms: int = Field(30_000, ge=1, le=3_600_000)
    tries: int = Field(5, ge=1, le=20)
    retry_wait_ms: int = Field(500, ge=1, le=60_000)
    max_page_bytes: int = Field(64 * MIB, ge=1 * KIB, le=1024 * MIB)
    max_bytes: int = Field(16 * 1024 * MIB, ge=1 * KIB)
    max_pages: int = Field(100_000, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _check(self) -> HttpConfig:
        if not _is_address(self.url.get_secret_value()):
            raise ValueError("url: an address with http:// or https:// and a host")
        if self.format == "jsonl" and (self.rows or isinstance(self.paging, NextUrl | Cursor)):
            raise ValueError("format: a body of JSON lines has neither `rows` nor a next page or cursor in it")
        values = {f"headers.{name}": value for name, value in self.headers.items()}
        values |= {"bearer_token": self.bearer_token} if self.bearer_token else {}
        for place, value in values.items():
            if not set(value.get_secret_value()) <= _HEADER_SAFE:
                raise ValueError(f"{place}: characters that a header cannot hold")
        if wrong := [name for name in self.headers if not _HEADER_NAME.fullmatch(name)]:
            raise ValueError(f"headers: {wrong[0][:80]!r} is no name of a header")
        _check_versions(self.version_field, self.updated_at_field, "field")
        if self.since_parameter and not (self.version_field or self.updated_at_field):
            raise ValueError("since_parameter: needs `version_field` or `updated_at_field`")
        return self

    @property
    def fields(self) -> Fields:
        """Which fields of a row mean something."""
        return Fields(
            self.id_field,
            self.version_field,
            self.updated_at_field,
            self.updated_at_unit,
            self.attributes_field,
            self.deleted_field,
        )


class SqlConfig(_TimedSource):
    """A query of a database."""

    kind: Literal["sql"]
    url: SecretStr
    password: SecretStr | None = None
    query: str = Field(min_length=1, max_length=64 * KIB)
    id_column: Name = "id"
    id_type: Literal["text", "integer", "uuid"] = "text"
    version_column: str = ""
    updated_at_column: str = ""
    deleted_column: str = ""
    json_columns: tuple[Name, ...] = Field((), strict=False)  # TOML has lists
    ids_per_query: int = Field(1_000, ge=1, le=10_000)
    statement_timeout_ms: int = Field(300_000, ge=1, le=86_400_000)

    @model_validator(mode="after")
    def _check(self) -> SqlConfig:
        _check_versions(self.version_column, self.updated_at_column, "column")
        return self

    @property
    def fields(self) -> Fields:
        """Which columns of a row mean something."""
        return Fields(
            self.id_column,
            self.version_column,
            self.updated_at_column,
            self.updated_at_unit,
            deleted=self.deleted_column,
            json=self.json_columns,
        )


SourceConfig = Annotated[FileConfig | HttpConfig | SqlConfig, Field(discriminator="kind")]

_source: TypeAdapter[FileConfig | HttpConfig | SqlConfig] = TypeAdapter(SourceConfig)
_SECRETS = ("url", "bearer_token", "password")


def read_config(path: Path) -> dict[DimensionType, tuple[FileConfig | HttpConfig | SqlConfig, Hider]]:
    """Read the file of sources; with each comes what takes its secrets out of messages.

    Raises:
        SourceError: it cannot be read, or holds what it must not; one line a fault, with its place.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise config_error(f"{path}: the file is larger than {_MAX_FILE_BYTES} bytes")
        tables = tomllib.loads(data.decode())
    except OSError as error:
        raise config_error(f"{path}: the file cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise config_error(f"{path}: the file is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise config_error(f"{path}: not TOML: {error}") from None
    found: dict[DimensionType, tuple[FileConfig | HttpConfig | SqlConfig, Hider]] = {}
    faults: list[str] = []
    for name, table in tables.items():
        if name not in set(DimensionType):
            faults.append(f"{path}: {name[:80]}: no type of objects; they are {', '.join(DimensionType)}")
        elif not isinstance(table, dict):
            faults.append(f"{path}: {name}: not a table")
        else:
            plain, secrets = _with_secrets(table, path.parent, f"{path}: {name}")
            try:
                found[DimensionType(name)] = (_source.validate_python(plain), Hider(secrets))
            except ValidationError as error:
                faults += [f"{path}: {_place(name, issue['loc'])}: {_words(issue['msg'])}" for issue in error.errors()]
    if faults:
        raise config_error("\n".join(faults))
    return found


def _with_secrets(table: dict[str, Any], folder: Path, place: str) -> tuple[dict[str, Any], list[str]]:
    """Return the table with every ``*_file`` read and every ``${NAME}`` put in, its paths whole, and its secrets."""
    plain = dict(table)
    secrets: list[str] = []

    def put_in(value: object, at: str, *, quoted: bool = False) -> object:
        if not isinstance(value, str):
            return value
        text, found = expand(value, f"{place}.{at}", quoted=quoted)
        secrets.extend(found)
        return text

    for name in _SECRETS:
        file = plain.get(f"{name}_file")
        if isinstance(file, str):
            if name in plain:
                raise config_error(f"{place}.{name}_file: given beside `{name}`")
            del plain[f"{name}_file"]
            plain[name] = read_secret_file(folder / Path(file).expanduser(), f"{place}.{name}_file")
            secrets.append(plain[name])
        elif name in plain:
            plain[name] = put_in(plain[name], name, quoted=name == "url")
            if name != "url" and isinstance(plain[name], str):
                secrets.append(plain[name])
    if isinstance(headers := plain.get("headers"), dict):
        plain["headers"] = {key: put_in(value, f"headers.{key}") for key, value in headers.items()}
        secrets += [value for value in plain["headers"].values() if isinstance(value, str)]
    if isinstance(url := plain.get("url"), str):
        secrets += _userinfo(url)
    if plain.get("kind") == "file" and isinstance(path := plain.get("path"), str):
        plain["path"] = str(folder / Path(str(put_in(path, "path"))).expanduser())
    return plain, secrets


def _is_address(text: str) -> bool:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        return False
    return url.scheme in ("http", "https") and bool(url.host) and 0 < (url.port or 80) < 65536


def _userinfo(url: str) -> list[str]:
    try:
        password = urlsplit(url).password
    except ValueError:
        return []
    return [password] if password else []


def _check_versions(version: str, updated_at: str, kind: str) -> None:
    if version and updated_at:
        raise ValueError(f"version_{kind} and updated_at_{kind}: one of them")


def _place(name: str, location: tuple[int | str, ...]) -> str:
    # The first part is the kind of a discriminated union, as is the one after `paging`: no key of the file.
    parts = [str(part) for part in location[1:]]
    if parts[:1] == ["paging"] and len(parts) > 2:
        del parts[1]
    return ".".join([name, *parts])


def _words(message: str) -> str:
    return message.removeprefix("Value error, ")
