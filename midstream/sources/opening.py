"""Opens the configured sources."""

from __future__ import annotations

from pathlib import Path

from midstream.dimensions import DimensionType
from midstream.settings import Settings
from midstream.sources.config import FileConfig, HttpConfig, read_config
from midstream.sources.files import FileSource
from midstream.sources.http import HttpSource
from midstream.sources.reading import Source
from midstream.sources.sql import SqlSource


def open_sources(settings: Settings) -> dict[DimensionType, Source]:
    """Return the source of each type that has one. Nothing is connected to before it is read.

    Raises:
        SourceError: SOURCE_CONFIG, the file of sources cannot be used.
    """
    if not settings.dimension_sources:
        return {}
    max_bytes = settings.max_dimension_bytes
    found: dict[DimensionType, Source] = {}
    for type_, (config, hide) in read_config(Path(settings.dimension_sources).expanduser().absolute()).items():
        if isinstance(config, FileConfig):
            found[type_] = FileSource(type_, config, max_bytes)
        elif isinstance(config, HttpConfig):
            found[type_] = HttpSource(type_, config, hide, max_bytes)
        else:
            found[type_] = SqlSource(type_, config, hide, max_bytes)
    return found
