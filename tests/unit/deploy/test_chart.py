"""The Helm chart: rendered with several values, each object valid, and all of them fit together."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import kubernetes_validate
import pytest
import yaml

from midstream.cli import cli
from midstream.topics import DEVICE, GROUP_DEVICES, GROUP_STORE, GROUP_VALIDATE, RAW, VALID
from tests.unit.deploy.chart import (
    CHART,
    FOREIGN,
    NAME,
    VALUES,
    VERSIONS,
    Manifest,
    component,
    config_of,
    each_case,
    helm,
    manifests,
    of_kind,
    pods,
    render,
    workloads,
)
from tests.unit.deploy.processes import PROCESSES, SETTINGS, check_values
from tests.unit.deploy.tools import ROOT


@each_case
def test_lint_has_nothing_to_say(case: str) -> None:
    done = helm("lint", str(CHART), "--strict", "--kube-version", "1.37", "--values", str(VALUES / f"{case}.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@each_case
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(case: str, version: str) -> None:
    checked = [one for one in manifests(case) if one["kind"] not in FOREIGN]
    assert len(checked) > 15
    for one in checked:
        kubernetes_validate.validate(one, version, strict=True)


def test_an_object_that_is_not_valid_would_be_seen() -> None:
    [one] = [one for one in of_kind("minimal", "StatefulSet") if component(one) == "store"]
    broken = json.loads(json.dumps(one))
    broken["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFilesystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@each_case
def test_names_are_unique_and_short_enough(case: str) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in manifests(case)]
    assert len(names) == len(set(names))
    assert all(len(name) <= 63 - len("-0123456789") for _, name in names)


@each_case
def test_selectors_find_their_pods_and_no_others(case: str) -> None:
    labels = {component(one): one["spec"]["template"]["metadata"]["labels"] for one in workloads(case)}

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, has in labels.items() if selector.items() <= has.items()}

    for one in of_kind(case, "Deployment", "StatefulSet", "PodDisruptionBudget"):
        assert found(one["spec"]["selector"]["matchLabels"]) == {component(one)}, one["metadata"]["name"]
    for one in of_kind(case, "Service"):
        if component(one) != "nowhere":
            assert found(one["spec"]["selector"]) == {component(one)}, one["metadata"]["name"]
    for one in of_kind(case, "NetworkPolicy"):
        assert found(one["spec"]["podSelector"]["matchLabels"]) == {component(one)}, one["metadata"]["name"]
    budgets = {component(one) for one in of_kind(case, "PodDisruptionBudget")}
    assert budgets == set(PROCESSES)


@each_case
def test_statefulsets_have_their_service_and_their_spool(case: str) -> None:
    headless = {one["metadata"]["name"] for one in of_kind(case, "Service") if one["spec"].get("clusterIP") == "None"}
    for one in of_kind(case, "StatefulSet"):
        assert one["spec"]["serviceName"] in headless
    [collector] = [one for one in of_kind(case, "StatefulSet") if component(one) == "collector"]
    assert collector["spec"]["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
    settings = config_of(case, collector["spec"]["template"]["spec"]["containers"][0])
    mounts = collector["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    [spool] = [one["mountPath"] for one in mounts if one["name"] == "spool"]
    assert settings["MIDSTREAM_SPOOL"] == spool


@pytest.mark.parametrize("case", ["minimal", "everything"])
def test_migrations_run_before_anything_else(case: str) -> None:
    [job] = of_kind(case, "Job")
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["midstream", "migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    needed = [one for one in of_kind(case, "ConfigMap") if component(one) == "migrate"]
    for one in needed:
        assert int(one["metadata"]["annotations"]["helm.sh/hook-weight"]) < int(
            job["metadata"]["annotations"]["helm.sh/hook-weight"]
        )
    [ours] = [one["data"] for one in of_kind(case, "ConfigMap") if component(one) == "settings"]
    assert [one["data"] for one in needed] == [ours]
    assert "serviceAccountName" not in job["spec"]["template"]["spec"], "the chart's own is not there yet"


def test_what_grows_by_itself_has_no_number_of_its_own_and_a_bound() -> None:
    grows = {component(one): one for one in of_kind("everything", "HorizontalPodAutoscaler", "ScaledObject")}
    assert set(grows) == {"collector", "validate", "store", "devices"}
    sets = {component(one): one for one in of_kind("everything", "StatefulSet")}
    for name, one in grows.items():
        assert one["spec"]["scaleTargetRef"]["name"] == sets[name]["metadata"]["name"]
        assert one["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"
        assert "replicas" not in sets[name]["spec"], "two would set it"
    groups = {"validate": (GROUP_VALIDATE, RAW), "store": (GROUP_STORE, VALID), "devices": (GROUP_DEVICES, DEVICE)}
    for name, (group, topic) in groups.items():
        [trigger] = grows[name]["spec"]["triggers"]
        assert (trigger["metadata"]["consumerGroup"], trigger["metadata"]["topic"]) == (group, topic.name)
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        assert trigger["authenticationRef"] == {"name": "kafka"}
        assert grows[name]["spec"]["maxReplicaCount"] <= 16


def every_pod(case: str) -> Iterator[tuple[str, Manifest]]:
    """Component and pod of each workload, of what runs at times as well."""
    for name, pod, _ in pods(case):
        yield name, pod
    for one in of_kind(case, "CronJob"):
        yield component(one), one["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_every_pod_runs_where_it_is_let() -> None:
    found = dict(every_pod("everything"))
    assert set(found) == {*PROCESSES, "migrate", "backup"}
    for name, pod in found.items():
        assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}, name
        assert [one["key"] for one in pod["tolerations"]] == ["telemetry"], name
        assert (pod["priorityClassName"], pod["imagePullSecrets"]) == ("high", [{"name": "pull"}]), name


def test_a_user_of_clickhouse_for_each_process() -> None:
    keys = {}
    for name, pod in every_pod("everything"):
        [source] = [one["valueFrom"] for one in pod["containers"][0]["env"] if one["name"] == "MIDSTREAM_CLICKHOUSE"]
        keys[name] = source["secretKeyRef"]["key"]
    own = {"migrate": "clickhouse-migrator", "store": "clickhouse-writer", "backup": "clickhouse-admin"}
    assert keys == dict.fromkeys(keys, "clickhouse") | own
    done = render("minimal", "--set", "clickhouseKeys.stores=x")
    assert done.returncode != 0
    assert "stores" in done.stderr


def test_backups_are_made_by_a_command_that_is_one(tmp_path: Path) -> None:
    [job] = of_kind("everything", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {one["name"] for one in pod["volumes"]} == {one["name"] for one in container["volumeMounts"]}
    check_values(config_of("everything", container))
    # A `midstream` that prints what it is called with.
    (tmp_path / "midstream").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "midstream").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(container["args"], env=environment, capture_output=True, text=True, timeout=20, check=True)
    name, folder, *options = done.stdout.splitlines()
    assert name == "backup"
    assert re.fullmatch(r"/backups/\d{4}-\d\d-\d\dT\d{6}", folder)
    assert options == ["--clickhouse-to", "S3(backups, '{id}')", "--with-key"]
    command = cli.get_command(click.Context(cli), "backup")
    assert command is not None
    command.make_context("backup", [folder, *options])


def test_a_collector_is_not_taken_away_by_itself_unless_asked() -> None:
    more = ("--set", "collector.autoscaling.enabled=true")
    found = [one for one in yaml.safe_load_all(render("minimal", *more).stdout) if one]
    [scaler] = [one for one in found if one["kind"] == "HorizontalPodAutoscaler"]
    assert scaler["spec"]["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}


def test_prometheus_finds_every_process_by_the_names_that_rules_use() -> None:
    monitors = {component(one): one for one in of_kind("everything", "ServiceMonitor")}
    assert set(monitors) == set(PROCESSES)
    services = of_kind("everything", "Service")
    for name, one in monitors.items():
        selector = one["spec"]["selector"]["matchLabels"]
        [service] = [each for each in services if selector.items() <= each["metadata"]["labels"].items()]
        assert component(service) == name, "each pod once"
        assert service["spec"]["publishNotReadyAddresses"] is True
        job = {"targetLabel": "job", "replacement": f"midstream-{name}"}
        assert job in one["spec"]["endpoints"][0]["relabelings"]


def test_rules_are_those_of_deploy_prometheus() -> None:
    rules = of_kind("everything", "PrometheusRule")
    files = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
    assert files
    groups = [group for path in files for group in yaml.safe_load(path.read_text("utf-8"))["groups"]]
    rendered = [group for one in rules for group in one["spec"]["groups"]]
    assert sorted(rendered, key=lambda group: group["name"]) == sorted(groups, key=lambda group: group["name"])


def test_outside_reaches_what_is_meant_for_it() -> None:
    from ingest.collector import PATHS

    [ingress] = of_kind("everything", "Ingress")
    [rule] = ingress["spec"]["rules"]
    backends = {one["path"]: one["backend"]["service"]["name"] for one in rule["http"]["paths"]}
    assert {path for path, name in backends.items() if name == f"{NAME}-collector"} == {
        *PATHS, "/v1/devices/telemetry", "/v1/devices/[^/]+/telemetry"
    }  # fmt: skip
    assert backends["/"] == f"{NAME}-api"
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind("everything", "Service")}
    assert set(backends.values()) <= set(services)
    assert "selector" not in services[backends["/metrics"]], "no pod answers"


def test_the_values_of_the_page_find_the_secrets_that_the_page_makes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    [values] = re.findall(r"^```yaml\n(# my-values\.yaml\n.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "my-values.yaml").write_text(values)
    done = helm("template", "midstream", str(CHART), "--kube-version", "1.37", "-f", str(tmp_path / "my-values.yaml"))
    assert done.returncode == 0, done.stderr
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    for one in objects:
        if one["kind"] not in FOREIGN:
            kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
    lines = re.findall(r"create secret (?:generic|tls) ([a-z-]+) (.*)", page.replace("\\\n", " "))
    made = {name: set(re.findall(r"--from-file=(\S+)", options)) for name, options in lines}
    wanted: dict[str, set[str]] = {}
    for one in objects:
        if one["kind"] == "Ingress":
            wanted.setdefault(one["spec"]["tls"][0]["secretName"], set())
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            pod = one["spec"]["template"]["spec"]
            for env in pod["containers"][0]["env"]:
                if reference := env.get("valueFrom", {}).get("secretKeyRef"):
                    wanted.setdefault(reference["name"], set()).add(reference["key"])
            [secrets] = [volume["projected"]["sources"] for volume in pod["volumes"] if "projected" in volume]
            for source in secrets:
                keys = {item["key"] for item in source["secret"]["items"]}
                wanted.setdefault(source["secret"]["name"], set()).update(keys)
    assert made == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("settings.MIDSTREAM_PARTITION=8", "settings.MIDSTREAM_PARTITION: there is no such setting"),
        ("settings.MIDSTREAM_HOME=/x", "settings.MIDSTREAM_HOME: the chart sets this one by itself"),
        ("secretEnv.MIDSTREAM_CLICKHOUSE.name=x", "secretEnv"),
        ("kafka.servers=", "kafka.servers"),
        ("existingSecret=", "existingSecret"),
        ("api.replicas=2", "ReadWriteMany"),
        ("store.keda.enabled=true,store.keda.maxReplicas=9", "more workers than MIDSTREAM_PARTITIONS"),
        ("collector.replica=3", "replica"),
        ("backup.enabled=true", "backup.clickhouseTo"),
        ("backup.enabled=true,backup.clickhouseTo=x", "backup.existingClaim"),
        ("store.replicas=-1", "store"),
    ],
)
def test_values_that_cannot_work_are_refused_with_the_reason(change: str, said: str) -> None:
    done = render("minimal", "--set", change)
    assert done.returncode != 0
    assert said in done.stderr


def test_the_chart_knows_all_settings() -> None:
    assert set((CHART / "files" / "settings.txt").read_text("utf-8").split()) == SETTINGS


def test_values_are_documented_by_their_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    assert set(schema["properties"]) == set(values)
    assert schema["additionalProperties"] is False
    for name, value in values.items():
        properties = schema["properties"][name].get("properties")
        if properties is not None:
            assert set(properties) == set(value), name
