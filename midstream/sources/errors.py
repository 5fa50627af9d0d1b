"""What goes wrong with a source: the one list of codes, each with its meaning and what an operator should do.

The table in ``docs/dimension-sources.md`` is checked against this list by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SourceCode(StrEnum):
    """Why a source could not be read, or what it gave was not taken as a whole."""

    SOURCE_CONFIG = "SOURCE_CONFIG"
    SOURCE_UNAVAILABLE = "SOURCE_UNAVAILABLE"
    SOURCE_TIMEOUT = "SOURCE_TIMEOUT"
    SOURCE_REFUSED = "SOURCE_REFUSED"
    SOURCE_REDIRECTED = "SOURCE_REDIRECTED"
    SOURCE_UNREADABLE = "SOURCE_UNREADABLE"
    SOURCE_CUT = "SOURCE_CUT"
    SOURCE_CHANGED = "SOURCE_CHANGED"
    SOURCE_LOOPS = "SOURCE_LOOPS"
    SOURCE_TOO_LARGE = "SOURCE_TOO_LARGE"
    SOURCE_SHRUNK = "SOURCE_SHRUNK"
    STAGING_FAILED = "STAGING_FAILED"


@dataclass(frozen=True, slots=True)
class SourceCodeDoc:
    """The documentation of one code."""

    meaning: str
    operator: str


SOURCE_CODES: dict[SourceCode, SourceCodeDoc] = {
    SourceCode.SOURCE_CONFIG: SourceCodeDoc(
        "The file of sources cannot be used; the message names the place.", "Correct it: it is read anew by each job."
    ),
    SourceCode.SOURCE_UNAVAILABLE: SourceCodeDoc(
        "Nobody answers or lets us in, there is no such file, or it answers 429 or 5xx after all tries.",
        "Bring the source back and sync again.",
    ),
    SourceCode.SOURCE_TIMEOUT: SourceCodeDoc(
        "A request, a statement or the whole read took longer than its limit.",
        "Find out what is slow, or raise the limit of the source.",
    ),
    SourceCode.SOURCE_REFUSED: SourceCodeDoc(
        "The source refuses: it answers a status of 4xx, or cannot run the query.",
        "Correct the credential, the address or the query.",
    ),
    SourceCode.SOURCE_REDIRECTED: SourceCodeDoc(
        "The source answers with a redirect, or its next page is at another host.",
        "Configure the address that it points to. Credentials go nowhere else by themselves.",
    ),
    SourceCode.SOURCE_UNREADABLE: SourceCodeDoc(
        "What came holds no rows: HTML, no JSON, no list where one should be, no column of ids.",
        "Compare what the source answers with how it is configured.",
    ),
    SourceCode.SOURCE_CUT: SourceCodeDoc(
        "The file or the answer ends half way: half a line, half a body, a gzip stream cut short.",
        "Write the file whole (under another name, then rename it) and sync again.",
    ),
    SourceCode.SOURCE_CHANGED: SourceCodeDoc(
        "A file or folder was changed while it was read.", "Sync again when it is written."
    ),
    SourceCode.SOURCE_LOOPS: SourceCodeDoc(
        "The pages never end: a next page, a cursor or a page's content came a second time.",
        "Correct the paging of the source, or how it is configured.",
    ),
    SourceCode.SOURCE_TOO_LARGE: SourceCodeDoc(
        "A page, the whole answer, the number of rows or their bytes on disk are beyond the limit.",
        "Raise the limit that the message names.",
    ),
    SourceCode.SOURCE_SHRUNK: SourceCodeDoc(
        "A full read holds nothing, or too small a share of the objects that are known: the rest would be deleted.",
        "Look whether the source is whole. If it is, sync again with force.",
    ),
    SourceCode.STAGING_FAILED: SourceCodeDoc(
        "What was read could not be written to the disk of the home, or read back from it.",
        "Make room on the disk and sync again.",
    ),
}


class SourceError(Exception):
    """A source cannot be read to its end, or what it gave must not be taken. Nothing of it is to be published.

    Attributes:
        code: one of :class:`SourceCode`.
    """

    def __init__(self, code: SourceCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def config_error(message: str) -> SourceError:
    """Return the error of a configuration that cannot be used."""
    return SourceError(SourceCode.SOURCE_CONFIG, message)
