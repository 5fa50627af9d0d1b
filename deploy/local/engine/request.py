"""What a request asks for, and whether it may: ClickHouse's HTTP parameters and headers."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from deploy.local.engine.codecs import check_content_encoding, choose
from deploy.local.engine.errors import (
    ACCESS_DENIED,
    AUTHENTICATION_FAILED,
    BAD_ARGUMENTS,
    BAD_REQUEST_PARAMETER,
    NOT_IMPLEMENTED,
    refused,
)

DATABASE = "midstream"
MAX_FORM_BYTES = 64 << 20
DEFAULT_MAX_QUERY_BYTES = 262_144  # ClickHouse's max_query_size
MAX_QUERY_BYTES = 64 << 20

# Parameters of the HTTP interface that are no settings of the engine. Sessions hold nothing here: every query has a
# connection of its own. The protocol version only says how Native blocks begin; clients probe for it.
_IGNORED = frozenset(
    (
        *("session_id", "session_timeout", "session_check", "quota_key", "buffer_size", "stacktrace", "role"),
        "client_protocol_version",
    )
)
_SETTING = re.compile(r"[A-Za-z_]\w{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Query:
    """One query as asked for.

    Attributes:
        sql: The ``query`` parameter; the body follows it.
        query_id: The client's own, or "".
        database: Where unqualified tables are looked up.
        default_format: Format where the SQL names none.
        settings: Settings and ``param_*`` of this query only, as text.
        readonly: Nothing may be changed (GET).
        wait: Answer when the query is done (``wait_end_of_query``), as far as the answer fits into memory.
        content_encoding: Codec of the body, "" for none.
        codec: Codec of the answer, "" for none.
        form: Content-Type of a multipart form, "" for a plain body.
    """

    sql: bytes
    query_id: str
    database: str
    default_format: str
    settings: dict[str, str]
    readonly: bool
    wait: bool
    content_encoding: str
    codec: str
    form: str

    @property
    def max_query_bytes(self) -> int:
        """Longest SQL, an INSERT's data not counted."""
        asked = self.settings.get("max_query_size", "")
        return min(int(asked), MAX_QUERY_BYTES) if asked.isdecimal() else DEFAULT_MAX_QUERY_BYTES


def read_query(method: str, query_string: bytes, headers: dict[str, str]) -> Query:
    """Read parameters and headers (names in lower case).

    Raises:
        QueryError: wrong user, unreadable or unsupported parameters.
    """
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        raise refused(BAD_REQUEST_PARAMETER, f"The query string is unreadable: {error}.") from None
    params = dict(pairs)
    _authenticate(params, headers)
    for native in ("compress", "decompress"):
        if params.pop(native, "0") not in ("", "0"):
            raise refused(
                NOT_IMPLEMENTED,
                f"{native}=1 (ClickHouse's own block compression) is not spoken by the local engine; "
                "use Content-Encoding and Accept-Encoding.",
            )
    content_encoding = headers.get("content-encoding", "").strip().lower().replace("identity", "")
    check_content_encoding(content_encoding)
    compress = params.pop("enable_http_compression", "1").lower() not in ("0", "false")
    content_type = headers.get("content-type", "")
    return Query(
        sql=params.pop("query", "").encode(),
        query_id=_query_id(params.pop("query_id", "")),
        database=params.pop("database", "") or headers.get("x-clickhouse-database", "") or DATABASE,
        default_format=params.pop("default_format", "") or headers.get("x-clickhouse-format", "") or "TabSeparated",
        readonly=method == "GET",
        wait=params.pop("wait_end_of_query", "0").lower() in ("1", "true"),
        content_encoding=content_encoding,
        codec=choose(headers.get("accept-encoding", "")) if compress else "",
        form=content_type if content_type.lower().startswith("multipart/form-data") else "",
        settings={_setting(name): value for name, value in params.items() if name not in _IGNORED},
    )


def read_form(query: Query, body: bytes) -> tuple[bytes, dict[str, str]]:
    """SQL and settings from a multipart form: fields ``query`` and ``param_*``.

    Raises:
        QueryError: unreadable, or with files (external tables are not supported).
    """
    parts = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + query.form.encode("latin-1") + b"\r\n\r\n" + body)
    if not parts.is_multipart():
        raise refused(BAD_REQUEST_PARAMETER, "The multipart form is unreadable.")
    sql = query.sql
    settings = dict(query.settings)
    for part in parts.iter_parts():
        name = str(part.get_param("name", "", header="Content-Disposition"))
        if part.get_filename() is not None or not name:
            raise refused(NOT_IMPLEMENTED, "External tables are not supported by the local engine.")
        value = part.get_payload(decode=True)
        assert isinstance(value, bytes)  # noqa: S101  a part of a multipart body is not multipart itself
        if name == "query":
            sql += value
        else:
            try:
                settings[_setting(name)] = value.decode()
            except UnicodeDecodeError:
                raise refused(BAD_REQUEST_PARAMETER, f"The form's field {name[:80]!r} is not UTF-8.") from None
    return sql, settings


def _setting(name: str) -> str:
    if _SETTING.fullmatch(name) is None:
        raise refused(BAD_ARGUMENTS, f"{name[:80]!r} is not a setting's name.")
    return name


def _query_id(text: str) -> str:
    """The id as it may stand in a header."""
    if text and (len(text) > 200 or not text.isascii() or not text.isprintable()):
        raise refused(BAD_ARGUMENTS, "query_id takes up to 200 printable ASCII characters.")
    return text


def _authenticate(params: dict[str, str], headers: dict[str, str]) -> None:
    """The local engine has one user, ``default``, without a password."""
    user = params.pop("user", "") or headers.get("x-clickhouse-user", "")
    password = params.pop("password", "") or headers.get("x-clickhouse-key", "")
    authorization = headers.get("authorization", "")
    if authorization:
        scheme, _, encoded = authorization.partition(" ")
        try:
            basic = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            basic = "?"
        user, _, password = basic.partition(":")
        if scheme.lower() != "basic":
            user = "?"
    if user not in ("", "default") or password:
        raise refused(
            AUTHENTICATION_FAILED,
            "Authentication failed: the local engine has only the user `default`, without a password.",
        )


def check_source(headers: dict[str, str]) -> None:
    """Refuse what a web page may send to this machine: a foreign Origin, or a foreign name that resolves to loopback.

    Raises:
        QueryError: code 497.
    """
    origin = headers.get("origin", "")
    host = headers.get("host", "")
    if (origin and not _is_loopback(urlsplit(origin).hostname)) or not _is_address(urlsplit(f"//{host}").hostname):
        raise refused(
            ACCESS_DENIED, "The local engine answers programs of this machine only, not web pages of other origins."
        )


def _is_loopback(name: str | None) -> bool:
    if name is None:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _is_address(name: str | None) -> bool:
    """Whether a Host is no name that somebody's DNS could have pointed here."""
    if not name or _is_loopback(name):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
