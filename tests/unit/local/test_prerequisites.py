from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import prerequisites


def fake(folder: Path, name: str, says: str = "", status: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {status}\n")
    path.chmod(0o755)
    return path


JAVA_17 = 'openjdk version "17.0.15" 2025-04-15'
JAVA_8 = 'java version "1.8.0_402"'


def test_nothing_is_missing(tmp_path: Path) -> None:
    fake(tmp_path, "java", JAVA_17)
    fake(tmp_path, "mvn")
    assert prerequisites.find_problems({"PATH": str(tmp_path)}) == []


def test_each_missing_thing_is_named_with_what_installs_it(tmp_path: Path) -> None:
    java, maven = prerequisites.find_problems({"PATH": str(tmp_path)})
    assert "Java 17" in java
    assert "apt-get install openjdk-17" in java
    assert "brew install openjdk" in java
    assert "mvn" in maven
    assert "apt-get install maven" in maven
    assert "brew install maven" in maven


def test_java_home_wins_over_path(tmp_path: Path) -> None:
    fake(tmp_path / "path", "java", JAVA_8)
    fake(tmp_path / "path", "mvn")
    environ = {"PATH": str(tmp_path / "path"), "JAVA_HOME": str(tmp_path / "jdk")}
    [missing] = prerequisites.find_problems(environ)
    assert f"JAVA_HOME={tmp_path / 'jdk'} has no bin/java" in missing
    fake(tmp_path / "jdk" / "bin", "java", JAVA_17)
    assert prerequisites.find_problems(environ) == []


@pytest.mark.parametrize(
    ("says", "status", "words"), [(JAVA_8, 0, "is 8"), ("no runtime", 1, "does not run"), ("hello", 0, "does not run")]
)
def test_a_java_that_is_no_good(tmp_path: Path, says: str, status: int, words: str) -> None:
    fake(tmp_path, "java", says, status)
    fake(tmp_path, "mvn")
    [problem] = prerequisites.find_problems({"PATH": str(tmp_path)})
    assert words in problem


def test_no_java_is_needed_with_a_kafka_of_ones_own(tmp_path: Path) -> None:
    assert prerequisites.find_problems({"PATH": str(tmp_path), "MIDSTREAM_KAFKA": "kafka:9092"}) == []
    assert prerequisites.find_problems({"PATH": str(tmp_path), "MIDSTREAM_KAFKA_FILE": "/run/secrets/kafka"}) == []


@pytest.mark.parametrize(("version", "expected"), [((3, 9), "3.9"), ((3, 10), "3.10")])
def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], expected: str) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    problems = prerequisites.find_problems({"MIDSTREAM_KAFKA": "x"})
    assert len(problems) == 1
    assert f"is {expected}." in problems[0]


def test_runs_as_a_script_and_fails(tmp_path: Path) -> None:
    script = Path(prerequisites.__file__)
    done = subprocess.run(
        [sys.executable, script], env={"PATH": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "midstream: Java 17 or newer is needed" in done.stderr
