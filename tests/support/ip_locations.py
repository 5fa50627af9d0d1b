"""Files of IP locations, of our own data: documentation's addresses are no public ones, so others stand in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

SOME_ADDRESS = "1.2.3.4"
"""A public one, which the shared pipeline's file has: in Kerala, Kochi."""


def write_locations(path: Path, records: Mapping[str, Any], *, ip_version: int = 6) -> Path:
    """Write a file of networks and their records, whole and then renamed, as who replaces one has to."""
    writer = MMDBWriter(ip_version=ip_version, ipv4_compatible=ip_version == 6, database_type="Test-City")
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    made = path.with_suffix(".made")
    writer.to_db_file(str(made))
    made.replace(path)
    return path


def city_record(state: str | None, district: str | None) -> dict[str, Any]:
    """Return a record as GeoIP2 City has it."""
    record: dict[str, Any] = {"country": {"iso_code": "IN", "names": {"en": "India"}}}
    if state is not None:
        record["subdivisions"] = [{"iso_code": "X", "names": {"en": state, "de": f"{state} (de)"}}]
    if district is not None:
        record["city"] = {"geoname_id": 1, "names": {"en": district, "de": f"{district} (de)"}}
    return record
