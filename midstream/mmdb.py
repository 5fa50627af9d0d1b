"""Opens a file in MaxMind's format. Apart from its use, so that a process may check it before metrics are set up."""

from __future__ import annotations

from pathlib import Path

import maxminddb

from midstream.settings import SettingsError


class MmdbError(Exception):
    """The file cannot be used; the message says why."""


def open_mmdb(path: Path) -> maxminddb.Reader:
    """Map the file into memory.

    Raises:
        MmdbError: it is missing, cannot be read or is of another format.
    """
    try:
        return maxminddb.open_database(path)
    except OSError as error:
        raise MmdbError(f"{path} cannot be used: {error.strerror or error}") from None
    except maxminddb.InvalidDatabaseError as error:
        raise MmdbError(f"{path} cannot be used: {error}") from None


def check_ip_locations(path: Path | None) -> None:
    """Check the file that ``MIDSTREAM_IP_LOCATIONS`` names, if it names one.

    Raises:
        SettingsError: it cannot be used.
    """
    if path is not None:
        try:
            open_mmdb(path).close()
        except MmdbError as error:
            raise SettingsError(f"MIDSTREAM_IP_LOCATIONS: {error}") from None
