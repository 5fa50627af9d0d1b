"""A device as operators see it. Pure: no I/O, no clock."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from midstream.registry.fleet.devices import DeviceInfo
from midstream.registry.fleet.seen import GRACE, OFFLINE_INTERVALS
from serve.fleet.store import Entry
from serve.objects import iso, iso_us


def is_stale(seen_at: datetime | None, interval_s: int, now: datetime) -> bool:
    """Whether a device has been silent for longer than its interval."""
    return _is_silent(seen_at, interval_s, now)


def status_of(said: Entry | None, seen_at: datetime | None, interval_s: int, now: datetime) -> str | None:
    """Return what a device is: what it said last, but offline when it is silent for long; None when it has said nothing
    yet and was seen a moment ago."""
    if _is_silent(seen_at, OFFLINE_INTERVALS * interval_s, now):
        return "offline"
    return None if said is None else str(said.value)


def _is_silent(seen_at: datetime | None, for_s: int, now: datetime) -> bool:
    return seen_at is None or now - seen_at > timedelta(seconds=for_s) + GRACE


def brief(info: DeviceInfo, said: Entry | None, now: datetime) -> dict[str, Any]:
    """Return a device as it stands in a list."""
    return {
        "id": info.id,
        "sn": info.sn,
        "name": info.name,
        "model": info.model,
        "status": status_of(said, info.last_seen_at, info.interval_s, now),
        "firmware_version": info.firmware_version,
        "last_seen": iso(info.last_seen_at),
        "stale": is_stale(info.last_seen_at, info.interval_s, now),
    }


def in_full(info: DeviceInfo, said: Entry | None, now: datetime) -> dict[str, Any]:
    """Return a device with all that is known of it but its state."""
    return {
        **brief(info, said, now),
        "sub_model": info.sub_model,
        "cloud_id": info.cloud_id,
        "mac": info.mac,
        "parent_id": info.parent_id,
        "details": info.details,
        "interval_s": info.interval_s,
        "info_version": info.info_version,
        "config_version": info.config_version,
        "applied_config_version": info.applied_version,
        "said_config_version": info.said_config_version,
        "space": info.space,
        "space_data_version": info.space_version,
        "said_space_version": info.said_space_version,
        "registered_at": iso(info.created_at),
        "revoked_at": iso(info.revoked_at),
    }


def shown_entry(entry: Entry, now_us: int) -> dict[str, Any]:
    """Return what a state says of a key."""
    return {"value": entry.value, "at": iso_us(entry.at_us), "age_s": max(0, now_us - entry.at_us) / 1_000_000}
