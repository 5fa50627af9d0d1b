"""Places of internet addresses, from files that are made here."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from midstream.ip_location import IpLocations, Place, public_address
from midstream.mmdb import check_ip_locations
from midstream.settings import SettingsError
from tests.support.ip_locations import city_record, write_locations

RECORDS = {
    "1.2.3.0/24": city_record("Karnataka", "Mysuru"),
    "1.2.4.0/24": city_record("Kerala", None),
    "1.2.5.0/24": city_record(None, "Kochi"),
    "1.2.6.0/24": city_record(None, None),
    "1.2.7.0/24": {"state": "Goa", "district": "North Goa"},
    "1.2.8.0/24": {"state": "Goa"},
    "10.0.0.0/8": city_record("Nowhere", "Private"),
    "2a00:1450::/32": city_record("Punjab", "Ludhiana"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_locations(tmp_path / "places.mmdb", RECORDS)


def find(locations: IpLocations, text: str) -> Place | None:
    return locations.find(public_address(text))


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("1.2.3.4", ("Karnataka", "Mysuru")),
        (" 1.2.3.4 ", ("Karnataka", "Mysuru")),
        ("::ffff:1.2.3.4", ("Karnataka", "Mysuru")),
        ("1.2.4.1", ("Kerala", "")),
        ("1.2.5.1", ("", "Kochi")),
        ("1.2.6.1", None),
        ("1.2.7.1", ("Goa", "North Goa")),
        ("1.2.8.1", ("Goa", "")),
        ("2a00:1450:4001::1", ("Punjab", "Ludhiana")),
        ("9.9.9.9", None),
        ("2a01::1", None),
    ],
)
def test_an_address_has_its_place(file: Path, address: str, place: tuple[str, str] | None) -> None:
    assert find(IpLocations(file), address) == place


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "1.2.3", "1.2.3.4:5000", "1.2.3.4, 5.6.7.8", "01.2.3.4", "1.2.3.4\0", "1" * 100_000,
        "10.1.2.3", "127.0.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "0.0.0.0", "255.255.255.255",
        "224.0.0.1", "192.0.2.1", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "ff0e::1", "2001:db8::1",
        "::ffff:10.1.2.3", "::ffff:127.0.0.1",
    ],
)  # fmt: skip
def test_what_is_no_public_address_has_no_place(file: Path, text: str) -> None:
    assert public_address(text) is None
    assert find(IpLocations(file), text) is None


@pytest.mark.parametrize(
    "record",
    [
        "text",
        ["list"],
        7,
        {"subdivisions": {}},
        {"subdivisions": []},
        {"subdivisions": ["x"]},
        {"subdivisions": [{"names": "x"}]},
        {"subdivisions": [{"names": {"en": 5}}], "city": {"names": {"de": "x"}}},
        {"state": 5, "district": None},
        {"state": " ", "district": ""},
        {},
    ],
)
def test_a_record_of_another_layout_has_no_place(tmp_path: Path, record: Any) -> None:
    if isinstance(record, dict):
        record = {name: value for name, value in record.items() if value is not None}
    locations = IpLocations(write_locations(tmp_path / "places.mmdb", {"1.2.3.0/24": record}))
    assert find(locations, "1.2.3.4") is None


def test_an_ipv6_address_in_a_file_of_ipv4_has_no_place(tmp_path: Path) -> None:
    file = write_locations(tmp_path / "places.mmdb", {"1.2.3.0/24": city_record("A", "B")}, ip_version=4)
    assert find(IpLocations(file), "2a00:1450:4001::1") is None
    assert find(IpLocations(file), "::ffff:1.2.3.4") == ("A", "B")


def test_a_good_file_and_none_pass_the_check(file: Path) -> None:
    check_ip_locations(file)
    check_ip_locations(None)


def test_without_a_file_nothing_is_found() -> None:
    locations = IpLocations(None)
    locations.refresh()
    assert find(locations, "1.2.3.4") is None


@pytest.mark.parametrize("content", [None, b"", b"nonsense" * 100])
def test_a_file_that_cannot_be_used_is_named_at_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "places.mmdb"
    if content is not None:
        path.write_bytes(content)
    for use in (IpLocations, check_ip_locations):
        with pytest.raises(SettingsError, match=rf"^MIDSTREAM_IP_LOCATIONS: {path} cannot be used: "):
            use(path)


def test_a_file_that_is_cut_short_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(SettingsError):
        IpLocations(file)


def test_a_replaced_file_is_opened(file: Path) -> None:
    locations = IpLocations(file)
    write_locations(file, {"1.2.3.0/24": city_record("Goa", "South Goa")})
    assert find(locations, "1.2.3.4") == ("Karnataka", "Mysuru")
    locations.refresh()
    assert find(locations, "1.2.3.4") == ("Goa", "South Goa")
    assert find(locations, "1.2.4.1") is None


def test_a_file_that_is_as_it_was_stays_open(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locations = IpLocations(file)
    monkeypatch.setattr("midstream.ip_location.open_mmdb", lambda _: pytest.fail("it was opened again"))
    locations.refresh()


@pytest.mark.parametrize("bad", [True, False])
def test_a_bad_replacement_leaves_the_old_one_and_is_told_once(
    file: Path, bad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = IpLocations(file)
    told: list[str] = []
    log = SimpleNamespace(error=lambda name, **_: told.append(name), info=lambda name, **_: None)
    monkeypatch.setattr("midstream.ip_location._log", log)
    if bad:
        other = file.with_suffix(".bad")
        other.write_bytes(b"nonsense" * 100)
        os.replace(other, file)
    else:
        file.unlink()
    for _ in range(3):
        locations.refresh()
    assert told == ["ip_locations.unusable"]
    assert find(locations, "1.2.3.4") == ("Karnataka", "Mysuru")
    write_locations(file, {"1.2.3.0/24": city_record("Goa", "South Goa")})
    locations.refresh()
    assert find(locations, "1.2.3.4") == ("Goa", "South Goa")


def test_a_record_that_is_damaged_has_no_place(file: Path) -> None:
    whole = file.read_bytes()
    start = whole.index(b"Karnataka")
    file.write_bytes(whole[: start - 1] + b"\xff\xff\xff\xff" + whole[start + 3 :])
    locations = IpLocations(file)
    assert find(locations, "1.2.3.4") is None
    assert find(locations, "2a00:1450:4001::1") == ("Punjab", "Ludhiana")
