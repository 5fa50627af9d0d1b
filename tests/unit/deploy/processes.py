"""What the processes of Midstream are, for whatever starts them: the one place that manifests are held against."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from midstream.settings import Settings

SETTINGS = {f"MIDSTREAM_{name.upper()}" for name in Settings.model_fields}
_DEFAULTS = Settings()


@dataclass(frozen=True)
class Process:
    """What runs, and the port at which it answers /health and /metrics."""

    module: str
    port: int


PROCESSES = {
    "collector": Process("ingest", _DEFAULTS.port),
    "api": Process("serve", _DEFAULTS.port),
    "validate": Process("processors.validate", _DEFAULTS.validate_metrics_port),
    "store": Process("processors.store", _DEFAULTS.store_metrics_port),
    "devices": Process("processors.devices", _DEFAULTS.devices_metrics_port),
    "jobs": Process("serve.jobs", _DEFAULTS.jobs_metrics_port),
}


def unknown_settings(names: Iterable[str]) -> set[str]:
    """Return those that begin with MIDSTREAM_ and are no setting, nor the name of a file that holds one."""
    ours = {name for name in names if name.startswith("MIDSTREAM_")}
    return {name for name in ours if name not in SETTINGS and name.removesuffix("_FILE") not in SETTINGS}


def check_values(environment: Mapping[str, str]) -> None:
    """Let the settings themselves read the values; secrets that come from elsewhere are left out.

    Raises:
        pydantic.ValidationError: a value is refused.
    """
    Settings.model_validate(
        {name.removeprefix("MIDSTREAM_").lower(): value for name, value in environment.items() if name in SETTINGS}
    )


def runs(command: list[str], process: Process) -> bool:
    """Tell whether a command is that of the process, and can be."""
    return (
        command == ["python", "-m", process.module]
        and importlib.util.find_spec(f"{process.module}.__main__") is not None
    )
