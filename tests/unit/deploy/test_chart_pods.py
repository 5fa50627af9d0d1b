"""The pods of the Helm chart: each is as our processes need it."""

from __future__ import annotations

from midstream.settings import MIB, Settings
from tests.unit.deploy.chart import (
    component,
    config_of,
    each_case,
    of_kind,
    pods,
    workloads,
)
from tests.unit.deploy.processes import PROCESSES, check_values, runs, unknown_settings


@each_case
def test_the_processes_are_ours(case: str) -> None:
    found = {name: container for name, _, container in pods(case) if name != "migrate"}
    assert set(found) == set(PROCESSES)
    for name, process in PROCESSES.items():
        assert runs(found[name]["args"], process), name
        assert "command" not in found[name], "the image's entrypoint passes signals on"
        assert [port["containerPort"] for port in found[name]["ports"]] == [process.port], name


@each_case
def test_pods_are_not_root_and_write_to_volumes_only(case: str) -> None:
    for name, pod, container in pods(case):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] == 10001, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert "/var/lib/midstream" in {one["mountPath"] for one in container["volumeMounts"]}, name


@each_case
def test_every_mount_has_its_volume_and_every_volume_a_mount(case: str) -> None:
    for one in workloads(case):
        pod = one["spec"]["template"]["spec"]
        claimed = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        there = {volume["name"] for volume in pod["volumes"]} | claimed
        mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted == there, component(one)
        for volume in pod["volumes"]:
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], component(one)


@each_case
def test_resources_are_bounded_and_asked_for(case: str) -> None:
    for name, _, container in pods(case):
        resources = container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}, name
        assert "memory" in resources["limits"], name
        assert _mib(resources["requests"]["memory"]) <= _mib(resources["limits"]["memory"]), name


def test_store_may_hold_what_its_caches_are_bounded_to() -> None:
    [store] = [container for name, _, container in pods("minimal") if name == "store"]
    held = Settings().dedupe_memory_bytes + Settings().dimension_cache_bytes
    assert _mib(store["resources"]["limits"]["memory"]) > held / MIB + 300


def test_the_spools_of_a_pod_fit_its_volume() -> None:
    [collector] = [one for one in of_kind("minimal", "StatefulSet") if component(one) == "collector"]
    settings = config_of("minimal", collector["spec"]["template"]["spec"]["containers"][0])
    [claim] = collector["spec"]["volumeClaimTemplates"]
    spools = int(settings["MIDSTREAM_WEB_WORKERS"]) * int(settings["MIDSTREAM_SPOOL_MAX_BYTES"]) / MIB
    assert _mib(claim["spec"]["resources"]["requests"]["storage"]) > 1.1 * spools


def test_built_days_fit_their_volume() -> None:
    [claim] = of_kind("minimal", "PersistentVolumeClaim")
    [api] = [container for name, _, container in pods("minimal") if name == "api"]
    settings = config_of("minimal", api)
    room = _mib(claim["spec"]["resources"]["requests"]["storage"]) * MIB
    kept = int(settings["MIDSTREAM_EXHAUST_BYTES"]) + Settings().dumps_bytes + Settings().exhaust_request_bytes
    assert room > 1.1 * kept


def _mib(quantity: str) -> float:
    units = {"Mi": 1, "Gi": 1024}
    return float(quantity[:-2]) * units[quantity[-2:]]


@each_case
def test_probes_ask_what_the_process_answers(case: str) -> None:
    for name, _, container in pods(case):
        if name == "migrate":
            continue
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[kind]["httpGet"]["port"] == "http", name
        assert container["startupProbe"]["httpGet"]["path"] == "/health", name
        assert container["livenessProbe"]["httpGet"]["path"] == "/health", name
        ready = "/accepting" if name == "collector" else "/health"
        assert container["readinessProbe"]["httpGet"]["path"] == ready, name
        # A worker ends itself when a record holds it up, which counts as a try of the record: it must be quicker.
        liveness = container["livenessProbe"]
        record_s = int(config_of(case, container)["MIDSTREAM_RECORD_TIMEOUT_MS"]) / 1000
        assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 2 * record_s, name


@each_case
def test_pods_have_the_time_that_their_end_takes(case: str) -> None:
    for name, pod, container in pods(case):
        if name in ("collector", "api"):
            drain_s = int(config_of(case, container).get("MIDSTREAM_DRAIN_TIMEOUT_MS", "10000")) / 1000
            before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pod["terminationGracePeriodSeconds"] >= before + 2 * drain_s + 3, name
        elif name != "migrate":
            assert pod["terminationGracePeriodSeconds"] >= 15, name


@each_case
def test_settings_are_settings_and_have_values_that_they_take(case: str) -> None:
    for name, _, container in pods(case):
        settings = config_of(case, container)
        names = {one["name"] for one in container["env"]} | set(settings)
        assert unknown_settings(names) == set(), name
        check_values(settings)
        assert {"MIDSTREAM_KAFKA", "MIDSTREAM_CLICKHOUSE", "MIDSTREAM_REGISTRY", "MIDSTREAM_REGISTRY_KEY"} <= names


@each_case
def test_files_that_settings_name_are_mounted(case: str) -> None:
    for name, pod, container in pods(case):
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        volumes = {one["name"]: one for one in pod["volumes"]}
        for setting, value in config_of(case, container).items():
            if setting.startswith("MIDSTREAM_") and value.startswith("/run/secrets/midstream/"):
                sources = volumes[mounts["/run/secrets/midstream"]]["projected"]["sources"]
                paths = {item["path"] for source in sources for item in source["secret"]["items"]}
                assert value.rpartition("/")[2] in paths, f"{name}: {setting}"


@each_case
def test_workers_keep_their_names_and_have_no_more_than_one_each(case: str) -> None:
    for one in of_kind(case, "StatefulSet"):
        names = [
            env["valueFrom"]["fieldRef"]["fieldPath"]
            for env in one["spec"]["template"]["spec"]["containers"][0]["env"]
            if env["name"] == "MIDSTREAM_WORKER_ID"
        ]
        assert names == ([] if component(one) == "collector" else ["metadata.name"])
    assert {component(one) for one in of_kind(case, "StatefulSet")} == {"collector", "validate", "store", "devices"}
