"""The machine on which was measured, and the versions of what ran."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import psutil

from bench.pipeline import ROOT

_TIMEOUT_S = 10.0
_POM = ROOT / "deploy" / "local" / "kafka" / "pom.xml"


def describe(folder: Path) -> dict[str, str]:
    """Return what a reader needs to judge the figures; ``folder`` is where the data is kept meanwhile."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system of the data": _file_system(folder),
        "load before": load,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Java": _java(),
        "Kafka": _kafka(),
        "ClickHouse engine": f"chdb {version('chdb')}",
        "Midstream": _commit(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in ("pyarrow", "orjson", "msgspec", "aiokafka")),
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "not known"


def _java() -> str:
    said = _output(["java", "-version"])
    return said.splitlines()[0] if said else "not known"


def _kafka() -> str:
    root = ElementTree.parse(_POM).getroot()  # noqa: S314  our own file
    return root.findtext(".//{http://maven.apache.org/POM/4.0.0}kafka.version", "not known")


def _commit() -> str:
    said = _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
    return said.strip() or "not known"


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout or done.stderr
