"""Where an internet address is: read from a file of the deployment in MaxMind's format, never asked of the network.

Two layouts of its records are read: that of GeoIP2 and GeoLite2 City (the first of ``subdivisions`` is the state,
``city`` the district, by their English names), and a plain ``{"state", "district"}``.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, NamedTuple

import maxminddb

from midstream.logs import get_logger
from midstream.metrics import IP_LOCATIONS_BUILT_SECONDS, IP_LOOKUPS
from midstream.mmdb import MmdbError, open_mmdb
from midstream.settings import SettingsError

_log = get_logger(__name__)

CHECK_EVERY_S = 30.0
"""How often whoever holds an :class:`IpLocations` calls its ``refresh``."""

_MAX_ADDRESS_CHARS = 64
_FOUND, _UNKNOWN, _FAILED = "found", "unknown", "failed"
for _outcome in (_FOUND, _UNKNOWN, _FAILED):
    IP_LOOKUPS.labels(_outcome)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Identity = tuple[int, int, int, int]


class Place(NamedTuple):
    """One of the two at least is not ""."""

    state: str
    district: str


def public_address(text: str) -> Address | None:
    """Return a text as an address of the public internet, None when it is none: private, reserved, or no address.

    An IPv4 address that is written as an IPv6 one (``::ffff:192.0.2.1``) is taken as what it is.
    """
    if len(text) > _MAX_ADDRESS_CHARS:
        return None
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address if address.is_global and not address.is_multicast else None


class IpLocations:
    """The file of places that is in use. ``refresh`` may run in another thread than ``find``.

    The file is mapped into memory. So another one must be renamed over it, as MaxMind's own updater does it: to write
    into it while it is read would change it under the reader.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the file; without one nothing is found.

        Raises:
            SettingsError: it is missing, cannot be read or is of another format.
        """
        self._path = path
        self._reader: maxminddb.Reader | None = None
        self._identity: _Identity | None = None
        self._told: object = None
        if path is None:
            return
        try:
            # What it is comes before its content: were it replaced in between, it is opened once more later.
            self._identity = _identify(path)
            self._use(open_mmdb(path))
        except MmdbError as error:
            raise SettingsError(f"MIDSTREAM_IP_LOCATIONS: {error}") from None

    def find(self, address: Address | None) -> Place | None:
        """Return where a public address is; None when that is not known. Takes microseconds."""
        reader = self._reader
        if reader is None or address is None:
            return None
        try:
            record = reader.get(address)
        except ValueError:  # an IPv6 address, and a file of IPv4 alone
            record = None
        except maxminddb.InvalidDatabaseError as error:
            IP_LOOKUPS.labels(_FAILED).inc()
            self._complain(reader, error)
            return None
        place = _place_of(record)
        IP_LOOKUPS.labels(_UNKNOWN if place is None else _FOUND).inc()
        return place

    def refresh(self) -> None:
        """Open the file anew when another one is there. One that cannot be used is logged, the old one kept. Blocks."""
        if self._path is None:
            return
        identity = _identify(self._path)
        if identity == self._identity:
            return
        try:
            reader = open_mmdb(self._path)
        except MmdbError as error:
            self._complain(("replaced", identity), error)
            return
        self._identity = identity
        self._use(reader)

    def _use(self, reader: maxminddb.Reader) -> None:
        about = reader.metadata()
        # The former one is closed when the last look-up that uses it is over.
        self._reader = reader
        IP_LOCATIONS_BUILT_SECONDS.set(about.build_epoch)
        _log.info("ip_locations.opened", kind=about.database_type, built_epoch_s=about.build_epoch)

    def _complain(self, about: object, error: Exception) -> None:
        if self._told != about:
            self._told = about
            _log.error("ip_locations.unusable", path=str(self._path), error=str(error))


def _identify(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except OSError:  # to open it says why
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _place_of(record: Any) -> Place | None:
    if not isinstance(record, dict):
        return None
    if "subdivisions" in record or "city" in record:
        subdivisions = record.get("subdivisions")
        first = subdivisions[0] if isinstance(subdivisions, list) and subdivisions else None
        place = Place(_english(first), _english(record.get("city")))
    else:
        place = Place(_text(record.get("state")), _text(record.get("district")))
    return place if place.state or place.district else None


def _english(named: Any) -> str:
    names = named.get("names") if isinstance(named, dict) else None
    return _text(names.get("en")) if isinstance(names, dict) else ""


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
