"""Settings: devices."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from midstream.settings.kinds import KIB, MIB


class Devices(BaseModel):
    """Devices: What is remembered and kept of them."""

    device_cache_entries: int = Field(
        50_000,
        ge=100,
        description="Devices whose key and flags one collector or api process remembers; others are read from the "
        "registry at each call.",
    )
    device_files: Path | None = Field(
        None,
        description="Folder of firmware and of what devices dump, which all processes of the api share. Empty: "
        "`device-files` in the home.",
    )
    max_device_file_bytes: int = Field(
        512 * MIB, ge=1 * KIB, description="Largest file for the devices of a model; larger is 413."
    )
    max_dump_bytes: int = Field(32 * MIB, ge=1 * KIB, description="Largest diagnostic file of a device; larger is 413.")
    dumps_bytes: int = Field(
        1024 * MIB, ge=1 * KIB, description="Bytes of all diagnostic files together; beyond it the oldest go."
    )
    public_url: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="Base URL that devices are told. Empty: the one that they called.",
    )
