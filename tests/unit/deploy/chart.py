"""The Helm chart as Helm renders it with several values, for tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.tools import ROOT, tool

CHART = ROOT / "deploy" / "kubernetes" / "midstream"
VALUES = Path(__file__).parent / "values"
VERSIONS = ("1.32.0", "1.37.0")
"""Of Kubernetes: the oldest that the chart takes, and the newest whose schemas are known."""
CASES = ("minimal", "everything", "small")
FOREIGN = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}
"""Kinds of other projects, whose schemas are not Kubernetes's."""
NAME = "run-midstream"

Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, timeout=60)


def render(case: str, *more: str) -> subprocess.CompletedProcess[str]:
    return helm(
        "template", "run", str(CHART), "--kube-version", "1.37", "--values", str(VALUES / f"{case}.yaml"), *more
    )


@cache
def manifests(case: str) -> list[Manifest]:
    done = render(case)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def of_kind(case: str, *kinds: str) -> list[Manifest]:
    return [one for one in manifests(case) if one["kind"] in kinds]


def workloads(case: str) -> list[Manifest]:
    return of_kind(case, "Deployment", "StatefulSet", "Job")


def component(manifest: Manifest) -> str:
    name: str = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
    return name


def pods(case: str) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Component, pod and container of each workload."""
    for one in workloads(case):
        pod = one["spec"]["template"]["spec"]
        [container] = pod["containers"]
        yield component(one), pod, container


def config_of(case: str, container: Manifest) -> dict[str, str]:
    """The settings that a container gets from ConfigMaps and as values."""
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(case, "ConfigMap")}
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        found |= maps[source["configMapRef"]["name"]]
    return found | {one["name"]: one["value"] for one in container["env"] if "value" in one}


each_case = pytest.mark.parametrize("case", CASES)
