"""A download, opened as clients open it."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from datetime import date
from typing import Any


class Archive:
    """The outer zip, its days, their hours."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.zip = zipfile.ZipFile(io.BytesIO(content))
        assert self.zip.testzip() is None

    @property
    def names(self) -> list[str]:
        return self.zip.namelist()

    def day_bytes(self, day: date) -> bytes:
        return self.zip.read(f"aggregated-{day}.gz")

    def day(self, day: date) -> zipfile.ZipFile:
        opened = zipfile.ZipFile(io.BytesIO(self.day_bytes(day)))
        assert opened.testzip() is None
        return opened

    def files(self, day: date) -> dict[str, bytes]:
        opened = self.day(day)
        return {name: opened.read(name) for name in opened.namelist()}

    def lines(self, day: date) -> list[dict[str, Any]]:
        """All lines of a day, in order."""
        found: list[dict[str, Any]] = []
        for packed in self.files(day).values():
            text = gzip.decompress(packed).decode()
            assert text.endswith("\n")
            # Not splitlines(): characters such as U+2028, which a text may hold, end no line here.
            found += [json.loads(line) for line in text.removesuffix("\n").split("\n")]
        return found
