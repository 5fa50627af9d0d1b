"""What must be on the machine before anything can be installed: Python, Java, Maven.

Runs as a plain script with the system's Python, which may be an old one: standard library only, nothing newer
than Python 3.7 in its syntax. A missing thing is named together with what installs it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping

MIN_PYTHON = (3, 11)
MIN_JAVA = 17

_PROBE_TIMEOUT_S = 20


def find_java(environ: Mapping[str, str]) -> str | None:
    """Return the ``java`` to use: of ``JAVA_HOME`` if that is set, else of ``PATH``; None if there is none."""
    java_home = environ.get("JAVA_HOME")
    if java_home:
        return shutil.which(os.path.join(java_home, "bin", "java"))
    return shutil.which("java", path=environ.get("PATH"))


def java_version(java: str) -> int | None:
    """Return the major version of a ``java``, None if it does not run (macOS has a stand-in that only complains)."""
    try:
        done = subprocess.run(  # noqa: S603 - the java of JAVA_HOME or PATH is what is being asked for
            [java, "-version"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)(?:\.(\d+))?', done.stdout.decode("utf-8", "replace"))
    if done.returncode != 0 or found is None:
        return None
    major = int(found.group(1))
    return int(found.group(2) or 0) if major == 1 else major  # "1.8.0" was version 8


def find_problems(environ: Mapping[str, str]) -> list[str]:
    """Return a message for each thing that is missing or too old; empty when all is there."""
    problems = []
    if sys.version_info < MIN_PYTHON:
        problems.append(
            "Python {}.{} or newer is needed; {} is {}.{}.\n{}".format(
                *MIN_PYTHON,
                sys.executable,
                *sys.version_info[:2],
                _install("python3.11 python3.11-venv (Debian 12: python3 python3-venv)", "python@3.13"),
            )
        )
    elif importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        problems.append(
            "{} has no venv module.\n{}".format(
                sys.executable, _install("python{}.{}-venv".format(*sys.version_info[:2]), "python@3.13")
            )
        )
    # With a Kafka of one's own there is no Java here.
    if not environ.get("MIDSTREAM_KAFKA") and not environ.get("MIDSTREAM_KAFKA_FILE"):
        problems.extend(_java_problems(environ))
    return problems


def _java_problems(environ: Mapping[str, str]) -> list[str]:
    problems = []
    install_java = _install("openjdk-17-jre-headless (Debian 13: openjdk-21-jre-headless)", "openjdk@21")
    java = find_java(environ)
    if java is None:
        where = (
            f"JAVA_HOME={environ['JAVA_HOME']} has no bin/java"
            if environ.get("JAVA_HOME")
            else "there is no java in PATH"
        )
        problems.append(f"Java {MIN_JAVA} or newer is needed (it runs Kafka); {where}.\n{install_java}")
    else:
        version = java_version(java)
        if version is None:
            problems.append(f"Java {MIN_JAVA} or newer is needed (it runs Kafka); {java} does not run.\n{install_java}")
        elif version < MIN_JAVA:
            problems.append(
                f"Java {MIN_JAVA} or newer is needed (it runs Kafka); {java} is {version}.\n{install_java}\n"
                "  Several Javas: set JAVA_HOME to the newer one."
            )
    if shutil.which("mvn", path=environ.get("PATH")) is None:
        problems.append(f"Maven is needed (it fetches Kafka); there is no mvn in PATH.\n{_install('maven', 'maven')}")
    return problems


def _install(debian: str, brew: str) -> str:
    return f"  Debian, Ubuntu:  sudo apt-get install {debian}\n  macOS:           brew install {brew}"


def main() -> int:
    """Print what is missing; exit code 0 when nothing is."""
    problems = find_problems(os.environ)
    for problem in problems:
        print(f"midstream: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
