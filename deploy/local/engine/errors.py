"""ClickHouse's errors: code, name, text, and the HTTP status that its server gives each."""

from __future__ import annotations

import re

UNKNOWN_EXCEPTION = 1002
BAD_ARGUMENTS = 36
NOT_IMPLEMENTED = 48
SYNTAX_ERROR = 62
UNKNOWN_COMPRESSION_METHOD = 89
TOO_MANY_SIMULTANEOUS_QUERIES = 202
QUERY_IS_TOO_LARGE = 229
CORRUPTED_DATA = 246
CANNOT_DECOMPRESS = 271
LIMIT_EXCEEDED = 290
INTO_OUTFILE_NOT_ALLOWED = 358
QUERY_WAS_CANCELLED = 394
BAD_REQUEST_PARAMETER = 408
ACCESS_DENIED = 497
AUTHENTICATION_FAILED = 516

_NAMES = {
    BAD_ARGUMENTS: "BAD_ARGUMENTS",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    SYNTAX_ERROR: "SYNTAX_ERROR",
    UNKNOWN_COMPRESSION_METHOD: "UNKNOWN_COMPRESSION_METHOD",
    TOO_MANY_SIMULTANEOUS_QUERIES: "TOO_MANY_SIMULTANEOUS_QUERIES",
    QUERY_IS_TOO_LARGE: "QUERY_IS_TOO_LARGE",
    CANNOT_DECOMPRESS: "CANNOT_DECOMPRESS",
    LIMIT_EXCEEDED: "LIMIT_EXCEEDED",
    INTO_OUTFILE_NOT_ALLOWED: "INTO_OUTFILE_NOT_ALLOWED",
    QUERY_WAS_CANCELLED: "QUERY_WAS_CANCELLED",
    BAD_REQUEST_PARAMETER: "BAD_REQUEST_PARAMETER",
    ACCESS_DENIED: "ACCESS_DENIED",
    AUTHENTICATION_FAILED: "AUTHENTICATION_FAILED",
    UNKNOWN_EXCEPTION: "UNKNOWN_EXCEPTION",
}

# As ClickHouse's HTTP handler maps them; every other code is 500. Two are ours: an overloaded pool is 503, so that a
# client tries again, and what the sender compressed wrongly is the sender's fault.
_STATUS = {
    **dict.fromkeys((192, 193, 512, AUTHENTICATION_FAILED, ACCESS_DENIED), 403),
    194: 401,
    **dict.fromkeys(
        # Arguments, texts and values that cannot be read, syntax, types.
        (BAD_ARGUMENTS, 6, 25, 26, 27, 37, 38, 41, 43, 44, 53, SYNTAX_ERROR, 72, 117, 123, 167, 168, 223, 321, 376),
        400,
    ),
    **dict.fromkeys((427, 441, 456, 457, 675, 676, INTO_OUTFILE_NOT_ALLOWED, BAD_REQUEST_PARAMETER), 400),
    **dict.fromkeys((CANNOT_DECOMPRESS, UNKNOWN_COMPRESSION_METHOD), 400),
    # Unknown table, function, identifier, type, storage, aggregate function, format, query, database, setting, engine.
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 139, 152, 336), 404),
    159: 408,
    381: 411,
    **dict.fromkeys((QUERY_IS_TOO_LARGE, LIMIT_EXCEEDED), 413),
    NOT_IMPLEMENTED: 501,
    **dict.fromkeys((76, TOO_MANY_SIMULTANEOUS_QUERIES, 209, 439), 503),
}

_CODE = re.compile(r"Code: (\d+)\. ")


class QueryError(Exception):
    """A query that failed.

    Attributes:
        code: ClickHouse's error code.
        text: ``Code: N. DB::Exception: ... (NAME) (version ...)``, one line break at the end.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @property
    def status(self) -> int:
        """HTTP status of the code."""
        return _STATUS.get(self.code, 500)


class ClientGoneError(Exception):
    """The client left before its request or its answer was whole."""


def refused(code: int, message: str) -> QueryError:
    """An error of this front, worded as ClickHouse's are."""
    return QueryError(code, f"Code: {code}. DB::Exception: {message} ({_NAMES[code]})\n")


def from_host(error: OSError) -> QueryError:
    """The machine's own trouble: no space for a body, no file descriptors."""
    return refused(UNKNOWN_EXCEPTION, f"The local engine's machine fails: {error.strerror or error}.")


def from_engine(error: RuntimeError, version: str) -> QueryError:
    """The engine's exception with its code read back from its text."""
    text = str(error)
    match = _CODE.search(text)
    if match is None:
        return QueryError(UNKNOWN_EXCEPTION, f"Code: {UNKNOWN_EXCEPTION}. DB::Exception: {text} (UNKNOWN_EXCEPTION)\n")
    text = text[match.start() :].strip()
    if "(version " not in text:
        text = f"{text} (version {version})"
    return QueryError(int(match.group(1)), text + "\n")
