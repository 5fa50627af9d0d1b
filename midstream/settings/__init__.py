"""Every setting of every process, read once from the environment (``MIDSTREAM_*``) and checked at start.

Each subject has a module here. ``docs/settings.md`` lists them; a test fails when one is missing there.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from midstream.secret_files import FileSource, SettingFileError
from midstream.settings.api import Api
from midstream.settings.collector import Collector
from midstream.settings.connections import Connections
from midstream.settings.consistent import problems_of
from midstream.settings.devices import Devices
from midstream.settings.errors import SettingsError
from midstream.settings.exhaust import Exhaust
from midstream.settings.kinds import KIB, MIB
from midstream.settings.local import Local
from midstream.settings.places import Places
from midstream.settings.running import Running
from midstream.settings.store import Store
from midstream.settings.sync import Sync
from midstream.settings.validate import Validate

__all__ = ["KIB", "MIB", "SUBJECTS", "Settings", "SettingsError", "get_settings", "load_settings"]

SUBJECTS = (Places, Connections, Running, Collector, Devices, Api, Sync, Exhaust, Validate, Store, Local)
"""What the settings are about, in the order of the reference page."""


class Settings(
    Places, Connections, Running, Collector, Devices, Api, Sync, Exhaust, Validate, Store, Local, BaseSettings
):
    """The settings. Sizes are bytes, times milliseconds unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="MIDSTREAM_", frozen=True, extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *others: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then files (``MIDSTREAM_X_FILE``), then the environment."""
        return init_settings, FileSource(settings_cls), named["env_settings"]

    @property
    def spool_folder(self) -> Path:
        """Folder of the spool in use."""
        return (self.spool or self.home / "spool").expanduser().absolute()

    @property
    def registry_key_file(self) -> Path:
        """File of the registry's key in use."""
        return (self.registry_key or self.home / "registry.key").expanduser().absolute()

    @property
    def device_files_folder(self) -> Path:
        """Folder of device files in use."""
        return (self.device_files or self.home / "device-files").expanduser().absolute()

    @property
    def exhaust_folder(self) -> Path:
        """Folder of built days in use."""
        return (self.exhaust or self.home / "exhaust").expanduser().absolute()

    @property
    def engine_backups_folder(self) -> Path:
        """Folder below which the local ClickHouse engine writes and reads backups."""
        return self.home / "clickhouse" / "backups"

    @property
    def kafka_servers(self) -> str:
        """Bootstrap servers in use."""
        return self.kafka or f"127.0.0.1:{self.local_kafka_port}"

    @property
    def kafka_has_tls(self) -> bool:
        """Whether connections to Kafka are encrypted."""
        return self.kafka_security in ("ssl", "sasl_ssl")

    @property
    def kafka_has_users(self) -> bool:
        """Whether we log in to Kafka by user and password."""
        return self.kafka_security in ("sasl_plaintext", "sasl_ssl")

    @property
    def clickhouse_dsn(self) -> str:
        """ClickHouse DSN in use."""
        return self.clickhouse or f"http://127.0.0.1:{self.local_clickhouse_port}/midstream"

    @property
    def registry_url(self) -> str:
        """SQLAlchemy URL of the registry in use."""
        return self.registry or f"sqlite:///{self.home / 'registry.db'}"

    @property
    def base_url(self) -> str:
        """Base URL of every API."""
        return f"http://{self.host}:{self.port}"


@cache
def get_settings() -> Settings:
    """Read the settings of this process, once.

    Raises:
        SettingsError: with one line a wrong setting.
    """
    return load_settings()


def load_settings() -> Settings:
    """Read the settings from the environment as it is now. See :func:`get_settings`."""
    try:
        settings = Settings()
    except SettingFileError as error:
        raise SettingsError(str(error)) from None
    except ValidationError as error:
        raise SettingsError("\n".join(_line_of(issue) for issue in error.errors())) from None
    if problems := problems_of(settings):
        raise SettingsError("\n".join(problems))
    return settings


def _line_of(issue: ErrorDetails) -> str:
    """Say what is wrong with a setting; the value of one that may hold a secret, or came from a file, is not shown."""
    name = "_".join(str(part) for part in issue["loc"])
    variable = f"MIDSTREAM_{name.upper()}"
    field = Settings.model_fields.get(name)
    shown = field is not None and field.repr and not os.environ.get(f"{variable}_FILE")
    return f"{variable}: {issue['msg']}" + (f" (got {issue['input']!r})" if shown else "")
