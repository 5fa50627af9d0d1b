"""Makes the virtual environment from a lock file with hashes; does nothing when it is up to date.

Runs as a plain script with the system's Python: standard library only. An installation that was cut off is known
by its marker and done anew. A lock file holds wheels only, and the build tool of our own package too, so nothing
is fetched whose hash is not in it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_MARKER = ".installing"
_INSTALL_TIMEOUT_S = 3600


class InstallError(Exception):
    """The virtual environment cannot be made; the message says why."""


def ensure(venv: Path, lock: Path, root: Path = ROOT) -> bool:
    """Install what ``lock`` names, and ``root`` itself as an editable package, into ``venv``.

    Returns whether anything had to be done.

    Raises:
        InstallError: a step failed; pip has said why.
    """
    python = venv / "bin" / "python"
    stamp = venv / f".{lock.name}.stamp"
    with (root / "pyproject.toml").open("rb") as held:  # two of us at once: the second waits, then finds it done
        fcntl.flock(held, fcntl.LOCK_EX)
        key = _key(venv, lock, root)
        if not (venv / _MARKER).exists() and stamp.exists() and stamp.read_text() == key and _runs(python):
            return False
        _prepare(venv, python)
        print(
            f"midstream: installing {lock.name} into {_shown(venv)} (the first time about a minute, 1 GB)",
            flush=True,
        )
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
        _run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(lock)])
        _run([*pip, "--no-deps", "--no-build-isolation", "--no-index", "-e", str(root)])
        stamp.write_text(_key(venv, lock, root))
        (venv / _MARKER).unlink()
    return True


def _prepare(venv: Path, python: Path) -> None:
    """Leave a virtual environment with pip in ``venv``, marked as being installed into."""
    cut_off = (venv / _MARKER).exists()
    if venv.exists() and (cut_off or not _runs(python)):
        if not cut_off and not (venv / "pyvenv.cfg").exists() and any(venv.iterdir()):
            raise InstallError(f"{venv} is there and is no virtual environment: move it away")
        print(f"midstream: {_shown(venv)} is incomplete, making it anew", flush=True)
        shutil.rmtree(venv)
    venv.mkdir(parents=True, exist_ok=True)
    (venv / _MARKER).touch()
    if not _runs(python, "import pip"):
        _run([sys.executable, "-m", "venv", str(venv)])


def _runs(python: Path, code: str = "") -> bool:
    """Whether the environment's Python runs; it does not once the Python that it was made of is gone."""
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _key(venv: Path, lock: Path, root: Path) -> str:
    """What an installation depends on. The folder is part of it: a moved environment's scripts point elsewhere."""
    digest = hashlib.sha256(lock.read_bytes() + (root / "pyproject.toml").read_bytes()).hexdigest()
    return json.dumps({"files": digest, "venv": str(venv.absolute())})


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, timeout=_INSTALL_TIMEOUT_S, check=True)  # noqa: S603 - our own commands
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallError(f"the virtual environment could not be made: {error}") from None


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def main() -> int:
    """Make the environment; exit code 0 when it stands."""
    parser = argparse.ArgumentParser(description="Make the virtual environment from a lock file.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    options = parser.parse_args()
    try:
        ensure(options.venv.absolute(), options.lock.absolute())
    except InstallError as error:
        print(f"midstream: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"midstream: {options.venv}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
