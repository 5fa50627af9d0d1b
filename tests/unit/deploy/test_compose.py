"""The compose file: it is one, and each container is as our processes need it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from cryptography.fernet import Fernet
from sqlalchemy import make_url

from midstream.clickhouse.client import parse_dsn
from tests.integration.containers import CLICKHOUSE_IMAGE, KAFKA_IMAGE
from tests.unit.deploy.processes import PROCESSES, check_values, runs, unknown_settings
from tests.unit.deploy.tools import ROOT, tool

FOLDER = ROOT / "deploy" / "compose"
OWN = [*PROCESSES, "migrate"]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file with its anchors resolved, as YAML 1.1 has it; variables are left as they stand."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    """Source and target of each volume."""
    return [(one.split(":")[0], one.split(":")[1]) for one in service.get("volumes", [])]


def test_compose_takes_the_file(services: dict[str, dict[str, Any]]) -> None:
    """Read as `docker compose` reads it, by the specification's schema and the rules beyond it."""
    command = [tool("compose-go"), "-format", "json", "compose.yaml"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == set(services)


def test_compose_refuses_what_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text((FOLDER / "compose.yaml").read_text("utf-8").replace("mem_limit: 6g", "memory_limit: 6g"))
    done = subprocess.run([tool("compose-go"), str(broken)], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "memory_limit" in done.stderr + done.stdout


def test_every_process_is_there_and_can_be_started(services: dict[str, dict[str, Any]]) -> None:
    for name, process in PROCESSES.items():
        assert runs(services[name]["command"], process), name
    assert services["migrate"]["command"] == ["midstream", "migrate"]
    assert services["migrate"]["restart"] == "no"


def test_images_are_pinned_and_those_that_the_tests_know(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[\w./-]+:v?\d+(\.\d+)*(-[\w.]+)?", service["image"]), name
    assert services["kafka"]["image"] == KAFKA_IMAGE
    assert services["clickhouse"]["image"] == CLICKHOUSE_IMAGE


def test_settings_are_settings(services: dict[str, dict[str, Any]]) -> None:
    for name in OWN:
        environment = services[name]["environment"]
        assert unknown_settings(environment) == set(), name
        assert set(environment) <= {one for one in environment if one.startswith("MIDSTREAM_")}, name
        check_values({key: value for key, value in environment.items() if not value.startswith("${")})


def test_our_containers_can_write_to_volumes_only(services: dict[str, dict[str, Any]]) -> None:
    for name in OWN:
        service = services[name]
        assert service["read_only"] is True, name
        assert "/var/lib/midstream" in [target for _, target in mounts(service)], name
        assert "user" not in service, "the image has its user"


def test_every_container_has_bounds_and_no_more_rights_than_it_needs(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"], name
        assert "privileged" not in service, name
    assert {name for name, service in services.items() if "cap_add" in service} == {"clickhouse", "postgres"}


def test_a_container_has_more_memory_than_its_caches_may_take(services: dict[str, dict[str, Any]]) -> None:
    from midstream.settings import MIB, Settings

    held = Settings().dedupe_memory_bytes + Settings().dimension_cache_bytes + 300 * MIB
    [limit] = re.findall(r"(\d+)m", services["store"]["mem_limit"])
    assert int(limit) * MIB > held


def test_what_was_answered_200_outlives_the_container(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    own = [source for source, target in mounts(services["collector"]) if target == "/var/lib/midstream"]
    assert own == ["collector"]
    assert "collector" in compose["volumes"]
    users = [name for name, service in services.items() if "collector" in [source for source, _ in mounts(service)]]
    assert users == ["collector"], "a spool is of one collector"


def test_volumes_are_declared_and_used(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    used = {source for service in services.values() for source, _ in mounts(service) if source[0] not in "./"}
    assert used == set(compose["volumes"])


def test_files_that_are_mounted_are_in_the_repository(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for source, _ in mounts(service):
            if source.startswith("."):
                assert (FOLDER / source).exists(), f"{name}: {source}"


def test_ports_are_open_to_this_host_only(services: dict[str, dict[str, Any]]) -> None:
    published = {name: port for name, service in services.items() for port in service.get("ports", [])}
    assert set(published) == {"gateway", "clickhouse", "prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for port in published.values())


def test_every_service_says_whether_it_is_healthy_and_stops_in_order(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name == "migrate":
            continue
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name
    for name, process in PROCESSES.items():
        assert f"http://127.0.0.1:{process.port}/health" in services[name]["healthcheck"]["test"][-1], name
        assert int(services[name]["stop_grace_period"].removesuffix("s")) >= 30, name


def test_nothing_starts_before_what_it_needs(services: dict[str, dict[str, Any]]) -> None:
    stores = {"kafka", "clickhouse", "postgres"}
    assert services["migrate"]["depends_on"] == {key: {"condition": "service_healthy"} for key in stores}
    for name in PROCESSES:
        after = services[name]["depends_on"]
        assert after["migrate"] == {"condition": "service_completed_successfully"}, name
        assert set(after) == {"migrate", *stores}, name


def test_secrets_come_from_files_that_the_script_makes(
    compose: dict[str, Any], services: dict[str, dict[str, Any]], secrets: Path
) -> None:
    for secret in compose["secrets"].values():
        assert (secrets / Path(secret["file"]).name).exists(), secret
    for name in OWN:
        given = set(services[name]["secrets"])
        files = [value for value in services[name]["environment"].values() if value.startswith("/run/secrets/")]
        assert {Path(value).name for value in files} == given, name


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secrets that a first start makes."""
    folder = tmp_path_factory.mktemp("compose")
    script = folder / "secrets.sh"
    script.write_bytes((FOLDER / "secrets.sh").read_bytes())
    first = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=60, check=True)
    made = {path.name: path.read_bytes() for path in (folder / "secrets").iterdir()}
    second = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=60, check=True)
    assert {path.name: path.read_bytes() for path in (folder / "secrets").iterdir()} == made, "they are kept"
    assert (first.stdout.count("made"), second.stdout.count("kept")) == (len(made), len(made))
    assert not any(secret.decode() in first.stdout for name, secret in made.items() if "password" in name)
    return folder / "secrets"


def test_only_their_owner_reaches_them_on_the_host(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    # In the containers the users are others than on the host.
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o444}


def test_they_fit_together(secrets: Path, services: dict[str, dict[str, Any]]) -> None:
    def read(name: str) -> str:
        return (secrets / name).read_text().strip()

    registry, clickhouse = make_url(read("registry")), parse_dsn(read("clickhouse"))
    postgres = services["postgres"]["environment"]
    assert (registry.host, registry.username) == ("postgres", postgres["POSTGRES_USER"])
    assert (registry.database, registry.password) == (postgres["POSTGRES_DB"], read("postgres-password"))
    assert (clickhouse.host, clickhouse.user, clickhouse.password) == (
        "clickhouse", "midstream", read("clickhouse-password")
    )  # fmt: skip
    Fernet(read("registry-key"))
    users = ElementTree.fromstring(read("clickhouse-users.xml")).find("users")
    assert users is not None
    for user, file in (("midstream", "clickhouse-password"), ("analyst", "analyst-password")):
        assert users.findtext(f"{user}/password_sha256_hex") == sha256(read(file).encode()).hexdigest()
    assert [one.text for one in users.findall("analyst/grants/query")] == ["GRANT SELECT ON midstream.*"]
    assert users.find("default[@remove]") is not None


def test_clickhouse_can_read_what_is_granted(secrets: Path) -> None:
    """By the parser of the engine, in a process of its own: it is large."""
    users = ElementTree.parse(secrets / "clickhouse-users.xml").findall("users/*")
    grants = [f"{one.text} TO {user.tag}" for user in users for one in user.findall("grants/query")]
    assert len(grants) == 6
    asked = "SELECT " + ", ".join("formatQuery('{}')".format(grant.replace("'", "\\'")) for grant in grants)
    script = "import sys, chdb; print(chdb.query(sys.argv[1], 'TabSeparated'))"
    command = [sys.executable, "-c", script, asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    read = done.stdout.strip().split("\t")
    # READ, WRITE ON DISK is written back by its other name.
    assert [one for one in read if one not in grants] == ["GRANT DISK ON *.* TO midstream"]
    assert len(read) == len(grants)


def test_backups_have_a_disk_that_outlives_the_container(services: dict[str, dict[str, Any]]) -> None:
    config = ElementTree.parse(FOLDER / "clickhouse" / "midstream.xml")
    assert config.findtext("backups/allowed_disk") == "backups"
    path = config.findtext("storage_configuration/disks/backups/path")
    assert path is not None
    assert ("clickhouse-backups", path.rstrip("/")) in mounts(services["clickhouse"])


def test_no_secret_is_in_the_repository() -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", str(FOLDER / "secrets" / "registry")], cwd=ROOT, timeout=20)
    assert ignored.returncode == 0


def test_prometheus_looks_where_the_processes_answer(services: dict[str, dict[str, Any]]) -> None:
    config = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text("utf-8"))
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    for name, process in PROCESSES.items():
        job = jobs[f"midstream-{name}"]
        if "static_configs" in job:
            assert job["static_configs"] == [{"targets": [f"{name}:{process.port}"]}]
        else:
            [found] = job["dns_sd_configs"]
            assert (found["names"], found["port"]) == ([name], process.port)
    assert ("../prometheus/rules", "/etc/prometheus/rules") in mounts(services["prometheus"])
    one_machine = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert config["global"] == one_machine["global"], "what rules are timed by"


def test_grafana_finds_its_dashboards_and_prometheus(services: dict[str, dict[str, Any]]) -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "midstream.yml").read_text("utf-8"))["providers"]
    [source] = yaml.safe_load((provisioning / "datasources" / "midstream.yml").read_text("utf-8"))["datasources"]
    assert ("../grafana/dashboards", provider["options"]["path"]) in mounts(services["grafana"])
    assert ("../grafana/provisioning", "/etc/grafana/provisioning") in mounts(services["grafana"])
    assert source["url"] == "${PROMETHEUS_URL}"
    assert services["grafana"]["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"


@pytest.mark.skipif(not os.path.exists("/usr/bin/promtool"), reason="promtool is not installed")
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    config = (FOLDER / "prometheus" / "prometheus.yml").read_text("utf-8")
    own = tmp_path / "prometheus.yml"
    own.write_text(config.replace("/etc/prometheus/rules", str(ROOT / "deploy" / "prometheus" / "rules")))
    done = subprocess.run(["promtool", "check", "config", str(own)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_gateway_sends_to_the_collector_what_is_its() -> None:
    from ingest.collector import PATHS
    from ingest.devices import handles

    config = (FOLDER / "gateway" / "default.conf").read_text("utf-8")
    exact = set(re.findall(r"location = (\S+) \{ proxy_pass \$collector; \}", config))
    [pattern] = re.findall(r"location ~ (\S+) \{ proxy_pass \$collector; \}", config)

    def goes_to_collector(path: str) -> bool:
        return path in exact or re.search(pattern, path) is not None

    ours = [*PATHS, "/v1/devices/telemetry", "/v1/devices/abc/telemetry"]
    others = ["/v1/devices/abc", "/v1/devices/a/b/telemetry", "/v1/devices", "/v1/validate", "/v1/telemetry/"]
    for path in (*ours, *others):
        assert goes_to_collector(path) == (path in PATHS or handles(path)), path
