"""Secrets of a configuration: from the environment as ``${NAME}``, or from a file; never in what is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from midstream.sources.errors import config_error

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MAX_FILE_BYTES = 64 * 1024
_HIDDEN = "***"
_MIN_HIDDEN_CHARS = 3  # a shorter one would tear every message to pieces, and is no secret


def expand(text: str, place: str, *, quoted: bool) -> tuple[str, list[str]]:
    """Put variables of the environment in the place of each ``${NAME}``.

    Args:
        text: what was configured.
        place: where, for the error.
        quoted: percent-encode the values, for a part of a URL; one that is the whole text stays as it is.

    Returns:
        The text, and the values that were put in.

    Raises:
        SourceError: a variable is not set.
    """
    found: list[str] = []
    alone = _VARIABLE.fullmatch(text) is not None

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise config_error(f"{place}: the variable {name} is not set in the environment")
        plain = os.environ[name]
        put = quote(plain, safe="") if quoted and not alone else plain
        found.extend((plain, put))
        return put

    return _VARIABLE.sub(value, text), found


def read_secret_file(path: Path, place: str) -> str:
    """Return what a file holds, without blanks and line ends around it.

    Raises:
        SourceError: it cannot be read, or is empty.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        text = data.decode().strip()
    except OSError as error:
        raise config_error(f"{place}: the file cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise config_error(f"{place}: the file is not UTF-8") from None
    if not text or len(data) > _MAX_FILE_BYTES:
        raise config_error(f"{place}: the file is {'too large' if text else 'empty'}")
    return text


class Hider:
    """Takes secrets out of messages of others, such as a driver's."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: one may be a part of another.
        self._secrets = sorted({one for one in secrets if len(one) >= _MIN_HIDDEN_CHARS}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text on one line, shortened, without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return " ".join(text.split())[:300]
