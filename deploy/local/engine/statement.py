"""What a statement is: a SELECT to stream, an INSERT with data to feed, or a command; and where its parts begin.

Only as much of ClickHouse's grammar as that needs: its tokens (strings, quoted names, comments, heredocs), and the
keywords that stand outside of brackets. Everything else is the engine's to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

from deploy.local.engine.errors import INTO_OUTFILE_NOT_ALLOWED, SYNTAX_ERROR, QueryError, refused

_TOKEN = re.compile(
    rb"""
      (?P<skip>(?:\s++ | --[^\n]*+ | \#[ !][^\n]*+ | /\*.*?\*/)++)
    | (?P<plain>(?:'(?:[^'\\]++ | \\. | '')*+' | [0-9.,=<>+%\s]++)++)      # values: nothing to look for inside
    | (?P<quoted>"(?:[^"\\]++ | \\. | "")*+" | `(?:[^`\\]++ | \\. | ``)*+`)
    | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
    | (?P<word>[A-Za-z_\x80-\xff][\w$\x80-\xff]*+)
    | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_STREAMED = {b"SELECT", b"WITH", b"FROM", b"SHOW", b"DESCRIBE", b"DESC", b"EXPLAIN", b"EXISTS", b"CHECK"}
_OWN_SETTINGS = {b"SELECT", b"WITH", b"FROM"}  # SETTINGS belong to the SELECT, not to what comes out of it
_BEFORE_NAME = (b"INSERT", b"INTO", b"TABLE", b"FUNCTION")
_FORMAT_NAME = re.compile(r"\w{1,64}", re.ASCII)


class Kind(Enum):
    """How a statement is run."""

    SELECT = "select"
    INSERT = "insert"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement.

    Attributes:
        kind: How it is run.
        sql: SELECT, COMMAND: all of it. INSERT: up to where FORMAT or VALUES stands.
        format: Format of the answer, or of an INSERT's data.
        tail: Where a SELECT's own FORMAT or trailing SETTINGS begin in ``sql``; its length without them.
        has_format: Whether the text of a SELECT names its format.
        data_start: INSERT: where the data begins in the request's text.
    """

    kind: Kind
    sql: bytes
    format: str
    tail: int = 0
    has_format: bool = False
    data_start: int = 0

    def into(self, path: str) -> bytes:
        """The SELECT, writing to a file (INTO OUTFILE stands before FORMAT)."""
        outfile = f"\nINTO OUTFILE '{path}' APPEND "
        if not self.has_format:
            outfile += f"FORMAT {self.format} "
        return self.sql[: self.tail] + outfile.encode() + self.sql[self.tail :]


class _Token(NamedTuple):
    text: bytes  # upper case for a word
    is_word: bool
    start: int
    end: int


def _outer_tokens(text: bytes) -> Iterator[_Token]:
    """Words and marks outside of brackets; a bracketed part shows as its opening bracket."""
    depth = 0
    for match in _TOKEN.finditer(text):
        group = match.lastgroup
        if group == "skip":
            continue
        word = match.group()
        if group == "mark" and word in b"([{":
            depth += 1
            if depth == 1:
                yield _Token(word, False, match.start(), match.end())
        elif group == "mark" and word in b")]}":
            depth = max(0, depth - 1)
        elif depth == 0 and word.strip():
            yield _Token(word.upper() if group == "word" else word, group == "word", match.start(), match.end())


def _first_word(text: bytes) -> bytes:
    """The first keyword, past comments and opening brackets."""
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "word":
            return match.group().upper()
        if match.lastgroup != "skip" and match.group() != b"(" and match.group().strip():
            break
    return b""


def parse(text: bytes, default_format: str) -> Statement:
    """Read a statement; of an INSERT with data, ``text`` may hold the beginning only.

    Args:
        text: The request's SQL, UTF-8.
        default_format: Format of an answer whose text names none.

    Raises:
        QueryError: nothing there, more than one statement, INTO OUTFILE or FROM INFILE (files of the server's host).
    """
    if _FORMAT_NAME.fullmatch(default_format) is None:
        raise refused(SYNTAX_ERROR, f"{default_format[:80]!r} is not a format's name.")
    first = _first_word(text)
    if first == b"INSERT":
        insert = _parse_insert(text)
        if insert is not None:
            return insert
    tokens = list(_outer_tokens(text))
    end = _end_of_statement(tokens, text)
    tokens = [token for token in tokens if token.end <= end]
    if not tokens:
        raise refused(SYNTAX_ERROR, "Empty query")
    words = [token.text if token.is_word else b"" for token in tokens]
    if (b"INTO", b"OUTFILE") in pairwise(words):
        raise refused(INTO_OUTFILE_NOT_ALLOWED, "INTO OUTFILE and FROM INFILE are not allowed over HTTP.")
    name = _format_at(tokens, words)
    format_name = tokens[name + 1].text if name is not None else b""
    sql = text[:end]
    answer_format = _original(text, tokens[name + 1]) if name is not None and format_name else default_format
    if first not in _STREAMED or b"INSERT" in words:
        return Statement(Kind.COMMAND, sql, answer_format)
    tail = len(sql)
    if name is not None:
        tail = tokens[name].start
    if first not in _OWN_SETTINGS:
        tail = min(tail, _settings_start(tokens, words, tail))
    return Statement(Kind.SELECT, sql, answer_format, tail, has_format=name is not None)


def insert_text_bytes(text: bytes) -> int:
    """Return where an INSERT's data begins, if ``text``, the beginning of a request, reaches beyond that; else 0."""
    if _first_word(text) == b"INSERT":
        with suppress(QueryError):  # said when the whole request is read
            insert = _parse_insert(text)
            if insert is not None and insert.data_start < len(text):
                return insert.data_start
    return 0


def _original(text: bytes, token: _Token) -> str:
    return text[token.start : token.end].decode("ascii", "replace")


def _end_of_statement(tokens: list[_Token], text: bytes) -> int:
    """Where the statement ends: at its semicolon, or with the text."""
    for index, token in enumerate(tokens):
        if token.text == b";":
            if any(later.text != b";" for later in tokens[index + 1 :]):
                raise refused(SYNTAX_ERROR, "Multi-statements are not allowed")
            return token.start
    return len(text)


def _format_at(tokens: list[_Token], words: list[bytes]) -> int | None:
    """Index of the FORMAT that ends a statement: followed by a name, and then by nothing or SETTINGS."""
    for index in range(len(tokens) - 2, -1, -1):
        if words[index] == b"FORMAT" and tokens[index + 1].is_word:
            after = index + 2
            if after == len(tokens) or words[after] == b"SETTINGS":
                return index
    return None


def _settings_start(tokens: list[_Token], words: list[bytes], otherwise: int) -> int:
    """Where a trailing ``SETTINGS name = value`` begins (SHOW SETTINGS is none)."""
    for index in range(len(tokens) - 3, 0, -1):
        if words[index] == b"SETTINGS" and words[index + 1] and tokens[index + 2].text.startswith(b"="):
            return tokens[index].start
    return otherwise


def _parse_insert(text: bytes) -> Statement | None:
    """An INSERT with data; None where its rows come from a SELECT, or where it is not whole."""
    tokens = _outer_tokens(text)
    name_done = False
    previous = b""
    for token in tokens:
        if not token.is_word:
            if previous in _BEFORE_NAME:
                name_done = True  # a quoted name, or {name:Identifier}
            previous = token.text.strip()
            continue
        if previous == b"FROM" and token.text == b"INFILE":
            raise refused(INTO_OUTFILE_NOT_ALLOWED, "INTO OUTFILE and FROM INFILE are not allowed over HTTP.")
        if not name_done:
            # INSERT INTO [TABLE] [FUNCTION] name: a table may be called `values` or `format`.
            name_done = previous in _BEFORE_NAME and token.text not in _BEFORE_NAME
        elif previous != b".":
            if token.text in (b"SELECT", b"WITH", b"EXPLAIN"):
                return None
            if token.text == b"VALUES":
                return Statement(Kind.INSERT, text[: token.start], "Values", data_start=token.end)
            if token.text == b"FORMAT":
                name = next(tokens, None)
                if name is None or not name.is_word:
                    return None
                return Statement(
                    Kind.INSERT, text[: token.start], _original(text, name), data_start=_data_start(text, name.end)
                )
        previous = token.text
    return None


def _data_start(text: bytes, position: int) -> int:
    """Where the data of ``FORMAT X`` begins: after one line break, or after the blanks if there is none."""
    while text[position : position + 1] in (b" ", b"\t", b"\f", b";") and position < len(text):
        position += 1
    if text[position : position + 1] == b"\r":
        position += 1
    if text[position : position + 1] == b"\n":
        position += 1
    return position
