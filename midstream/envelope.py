"""Reading a batch body: find the bounds of each event without judging any of them.

The collector (which only counts) and ``validate`` (which splits) read a body by the same function, so that an
event's index means the same everywhere. One bad event never costs its neighbours: where msgspec cannot read the
body, a scanner that knows only strings and brackets finds where each element of ``events`` begins and ends.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec


class EnvelopeError(ValueError):
    """The body is not a batch: no JSON, no object, or without an array ``events``."""


class Envelope(msgspec.Struct, frozen=True):
    """A batch body. Everything but ``events`` is optional and of whatever type the client sent."""

    events: list[msgspec.Raw]
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ets: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
