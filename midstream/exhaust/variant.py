"""What of a dataset is asked for, and in which form. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from typing import Any

from midstream.exhaust.names import FORMATS, Format

MAX_VALUES = 100
"""Values of one filter of a request."""
MAX_VALUE_CHARS = 256

LAYOUT = 1
"""Rises when the same events would become other bytes: files of an older layout are built anew."""


class VariantError(ValueError):
    """A format or filter that cannot be; the message says which."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The form of the files, and which of the dataset's events they hold.

    Attributes:
        format: of the lines.
        eids: only events of these types; empty: all.
        channels: only events of these channels; empty: all.
    """

    format: Format = "jsonl"
    eids: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON knows it; see :func:`variant_from`."""
        return {"format": self.format, "eids": list(self.eids), "channels": list(self.channels)}


def variant_from(value: dict[str, Any]) -> Variant:
    """Return what :meth:`Variant.as_dict` made."""
    return read_variant(value["format"], value["eids"], value["channels"])


def read_variant(format_: str, eids: list[str], channels: list[str]) -> Variant:
    """Return the variant that a request names; values may stand in any order, and twice.

    Raises:
        VariantError: an unknown format, or values that are too many, empty or too long.
    """
    if format_ not in FORMATS:
        raise VariantError(f"format is one of {', '.join(FORMATS)}, not {format_[:40]!r}")
    return Variant(format_, _values("eid", eids), _values("channel", channels))


def _values(name: str, values: list[str]) -> tuple[str, ...]:
    found = tuple(sorted(set(values)))
    if len(found) > MAX_VALUES:
        raise VariantError(f"at most {MAX_VALUES} values of {name} are taken")
    for value in found:
        if not 0 < len(value) <= MAX_VALUE_CHARS or "\x00" in value:
            raise VariantError(f"a value of {name} takes 1 to {MAX_VALUE_CHARS} characters")
    return found


@dataclass(frozen=True, slots=True)
class DayKey:
    """Which bytes a day's file has: the same key, the same bytes.

    Attributes:
        dataset: its name.
        digest: of the dataset's declaration, as far as it determines the bytes.
        resource: in its canonical form.
        variant: what of it.
        day: a UTC day.
        revision: number of the newest revision of that day; 0: none.
    """

    dataset: str
    digest: str
    resource: str
    variant: Variant
    day: date
    revision: int = 0

    @property
    def series(self) -> str:
        """What all days of the same request share: 40 hex digits."""
        parts = [LAYOUT, self.dataset, self.digest, self.resource, self.variant.as_dict()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def etag(keys: list[DayKey]) -> str:
    """Return the strong entity tag of a download of these days, quoted.

    It is made of what determines the bytes, not of the bytes, so that it is known before they are made.
    """
    text = json.dumps([keys[0].series, [[str(key.day), key.revision] for key in keys]])
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:40]}"'


def download_number(keys: list[DayKey]) -> int:
    """Return ``<n>`` of a download's file name: the same for the same bytes, another after a revision."""
    return int(etag(keys)[1:9], 16)
