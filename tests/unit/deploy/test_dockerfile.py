"""The image: what it is built from is there and pinned, and what runs is not root."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.unit.deploy.processes import check_values, unknown_settings

ROOT = Path(__file__).parents[3]
LOCK = (ROOT / "requirements-image.lock").read_text("utf-8")


@dataclass(frozen=True)
class Instruction:
    stage: int
    name: str
    text: str


def _instructions() -> list[Instruction]:
    """The instructions in order; comments and continued lines are joined as the builder does."""
    lines = [line for line in (ROOT / "deploy" / "Dockerfile").read_text("utf-8").splitlines() if line[:1] != "#"]
    found: list[Instruction] = []
    stage = -1
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, text = line.strip().partition(" ")
            stage += name == "FROM"
            found.append(Instruction(stage, name, " ".join(text.split())))
    return found


INSTRUCTIONS = _instructions()
LAST = INSTRUCTIONS[-1].stage
RUNTIME = [one for one in INSTRUCTIONS if one.stage == LAST]


def texts(name: str, instructions: list[Instruction] = INSTRUCTIONS) -> list[str]:
    return [one.text for one in instructions if one.name == name]


def locked(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", text, re.MULTILINE))


def test_every_base_has_a_full_version_and_both_stages_the_same() -> None:
    bases = {text.split(" AS ")[0] for text in texts("FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", bases.pop())


def test_the_base_is_a_python_that_the_package_takes() -> None:
    [version] = re.findall(r"^python:(3\.\d+)", texts("FROM")[0])
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    assert Requirement(f"python{wanted}").specifier.contains(version)


def test_what_is_copied_is_there_and_not_ignored() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert rules[0] == "*", "what is not named is not sent to the builder"
    sources = [source for text in texts("COPY") if "--from" not in text for source in text.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        taken = [rule[1:] for rule in rules if rule.startswith("!")]
        assert any(fnmatch(source, rule) or rule.startswith(f"{source}/") for rule in taken), source


def test_every_package_that_is_built_in_is_copied() -> None:
    included = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]["find"]
    copied = {text.split()[0] for text in texts("COPY")}
    assert {name.removesuffix("*") for name in included["include"]} <= copied


def test_packages_come_with_hashes_and_nothing_is_compiled() -> None:
    [install] = [part for text in texts("RUN") for part in text.split("&&") if "requirements-image.lock" in part]
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(install.split())
    for block in re.split(r"\n(?=[a-z0-9])", LOCK.split("\n# The following")[0]):
        assert "--hash=sha256:" in block, block[:80]


def test_the_image_has_the_versions_that_were_tested_and_not_the_local_engine() -> None:
    image, tested = locked(LOCK), locked((ROOT / "requirements-test.lock").read_text("utf-8"))
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}
    here = locked((ROOT / "requirements.lock").read_text("utf-8"))
    assert set(here) - set(image) == {"chdb", "chdb-core", "supervisor"}
    assert set(image) - set(here) == {"psycopg", "psycopg-binary"}


def test_the_runtime_has_no_compiler_and_no_java_and_keeps_no_lists() -> None:
    [installed] = re.findall(r"apt-get install ([^&]+)", " ".join(texts("RUN", RUNTIME)))
    packages = [word for word in installed.split() if not word.startswith("-")]
    assert packages == ["postgresql-client-17", "tini"]
    compose = (ROOT / "deploy" / "compose" / "compose.yaml").read_text("utf-8")
    assert "image: postgres:17-" in compose, "pg_dump must not be older than the server"
    assert "--no-install-recommends" in installed
    assert "rm -rf /var/lib/apt/lists/*" in " ".join(texts("RUN", RUNTIME))


def test_it_runs_as_a_fixed_user_that_is_not_root() -> None:
    [user] = texts("USER", RUNTIME)
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    uid, gid = user.split(":")
    made = " ".join(texts("RUN", RUNTIME))
    assert f"useradd --uid {uid} --gid {gid} " in made
    assert f"install --directory --owner {uid} --group {gid} --mode 0700 /var/lib/midstream " in made
    after = RUNTIME[[one.name for one in RUNTIME].index("USER") :]
    assert {"RUN", "COPY", "ADD"} & {one.name for one in after} == set()


@pytest.mark.parametrize("key", ["title", "version", "licenses", "revision", "description"])
def test_it_says_what_it_is(key: str) -> None:
    assert f"org.opencontainers.image.{key}=" in " ".join(texts("LABEL", RUNTIME))


def test_its_version_is_that_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"VERSION={version}" in texts("ARG", RUNTIME)
    compose = (ROOT / "deploy" / "compose" / "compose.yaml").read_text("utf-8")
    chart = (ROOT / "deploy" / "kubernetes" / "midstream" / "Chart.yaml").read_text("utf-8")
    assert re.findall(r"image: midstream:(\S+)", compose) == [version]
    assert re.findall(r"^(?:appVersion|version): (\S+)", chart, re.MULTILINE) == [version, version]


def test_the_settings_it_brings_are_settings() -> None:
    given = dict(re.findall(r"(\w+)=(\S+)", " ".join(texts("ENV", RUNTIME))))
    assert unknown_settings(given) == set()
    check_values(given)
    assert {given["MIDSTREAM_HOST"], given["MIDSTREAM_METRICS_HOST"]} == {"0.0.0.0"}
