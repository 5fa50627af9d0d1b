"""Kafka's jars: fetched once by Maven, as ``kafka/pom.xml`` pins them, and shared by all homes of this checkout."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from deploy.local.errors import LocalError
from deploy.local.waiting import Flag, Waiter

KAFKA = Path(__file__).parent / "kafka"
POM = KAFKA / "pom.xml"
LIBS = KAFKA / "libs"

_STAMP = ".pom.sha256"
_FETCH_TIMEOUT_S = 900.0


def ensure_jars(say: Callable[[str], None], waiter: Waiter) -> Path:
    """Return the folder of the jars, fetched if they are not there or the pom has changed.

    Raises:
        LocalError: Maven is missing or fails; the message has its words.
        StopRequestedError: a stop was asked for.
    """
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()
    with POM.open("rb") as held:  # two pipelines at once: the second waits, then finds them there
        fcntl.flock(held, fcntl.LOCK_EX)
        stamp = LIBS / _STAMP
        if not stamp.exists() or stamp.read_text() != wanted:
            say("Fetching Apache Kafka through Maven (46 jars, 44 MB)")
            _fetch(wanted, waiter)
    return LIBS


def _fetch(wanted: str, waiter: Waiter) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise LocalError("Maven is needed to fetch Kafka, and there is no mvn in PATH")
    new = LIBS.with_name("libs.new")  # a fetch that was cut off stays here
    shutil.rmtree(new, ignore_errors=True)
    # -C: a checksum that does not match fails, where Maven by itself would only warn.
    command = [maven, "-B", "-C", "-q", "-f", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={new}"]
    waiter.run_command(command, _FETCH_TIMEOUT_S)
    if not any(new.glob("kafka_*.jar")):
        raise LocalError(f"Maven left no Kafka in {new}")
    (new / _STAMP).write_text(wanted)
    shutil.rmtree(LIBS, ignore_errors=True)
    new.replace(LIBS)


def main() -> int:
    """Fetch the jars; exit code 0 when they are there."""
    try:
        ensure_jars(lambda line: print(f"midstream: {line}", flush=True), Waiter(Flag()))
    except LocalError as error:
        print(f"midstream: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
