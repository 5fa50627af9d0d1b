"""Where a stage's time goes: ``python -m bench.profile validate``, which ``make profile STAGE=validate`` runs.

Starts a pipeline, sends the measured mix without a pause, and records the stage's process with py-spy twice: all its
threads as a flame graph, then those that hold the interpreter's lock, whose functions with most time are printed. (A
thread that waits in C looks to py-spy like one that works there, so that all threads together have no useful order.)
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from bench.load import Load, Runner
from bench.pipeline import ROOT, BenchError, BenchPipeline, bench_folder
from bench.processes import processes_by_kind

STAGES = {"collector": "collector and api", "validate": "validate", "store": "store"}

_TOP = 25
_RATE_HZ = 250
_WARM_UP_EVENTS = 10_000
_ENDLESS_EVENTS = 1_000_000_000
_MARGIN_S = 60
_LOOK_S = 2.0


def main() -> int:
    """Record and print; exit code 1 when that is not possible."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("stage", choices=sorted(STAGES))
    parser.add_argument("--seconds", type=int, default=15, help="of each of the two recordings")
    parser.add_argument("--batch", type=int, default=20, help="events a batch")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where data and the flame graph are kept")
    arguments = parser.parse_args()
    try:
        _profile(arguments.folder.absolute(), arguments.stage, arguments.seconds, arguments.batch)
    except BenchError as error:
        print(f"profile: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _profile(folder: Path, stage: str, seconds: int, batch_events: int) -> None:
    py_spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if py_spy is None:
        raise BenchError("py-spy is not installed: make profile installs it")
    svg = folder / f"profile-{stage}.svg"
    with bench_folder(folder), BenchPipeline(folder) as pipeline, tempfile.TemporaryDirectory() as scratch:
        pipeline.push_dimensions()
        runner = Runner(pipeline)
        runner.run(Load(_WARM_UP_EVENTS, batch_events))
        processes = processes_by_kind(pipeline.home)[STAGES[stage]]
        stacks = Path(scratch) / "stacks"
        with runner.sending(Load(_ENDLESS_EVENTS, batch_events)):
            pid = busiest(processes, _LOOK_S)
            _record(py_spy, pid, seconds, "--format", "flamegraph", "--output", str(svg))
            _record(py_spy, pid, seconds, "--gil", "--format", "raw", "--output", str(stacks))
        text = stacks.read_text("utf-8")
    print(top_functions(text, _TOP))
    print(f"\nFlame graph: {svg}")


def busiest(processes: list[psutil.Process], within_s: float) -> int:
    """Return the pid of the process that uses most within some seconds from now.

    Of several that serve the base URL, it is one that serves this load: which of them have its connections is the
    system's choice, and another load's is no sign.
    """
    before = [sum(process.cpu_times()[:2]) for process in processes]
    time.sleep(within_s)
    used = [sum(process.cpu_times()[:2]) - had for process, had in zip(processes, before, strict=True)]
    return int(processes[used.index(max(used))].pid)


def _record(py_spy: str, pid: int, seconds: int, *more: str) -> None:
    command = [py_spy, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(_RATE_HZ), *more]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + _MARGIN_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise BenchError(f"py-spy does not end {_MARGIN_S} s after its time") from None
    if done.returncode:
        advice = "it needs the right to look into other processes (root, or kernel.yama.ptrace_scope=0)"
        raise BenchError(f"py-spy: {done.stderr.strip()[-500:]}; {advice}")


def top_functions(stacks: str, count: int) -> str:
    """Return a table of the functions in which most samples were, by themselves and with what they call.

    ``stacks`` has a line a stack: frames from the outermost, ``;`` between, then a blank and the number of samples.
    """
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, samples = line.rpartition(" ")
        names = [_function(frame) for frame in frames.split(";")]
        own[names[-1]] += int(samples)
        total.update(dict.fromkeys(names, int(samples)))
    all_samples = sum(own.values())
    if not all_samples:
        return "no samples: the stage was idle"
    lines = [f"{all_samples} samples", "  own %  total %  function"]
    lines += [
        f"  {samples / all_samples:5.1%}    {total[name] / all_samples:5.1%}  {name}"
        for name, samples in own.most_common(count)
    ]
    return "\n".join(lines)


def _function(frame: str) -> str:
    """Return a frame without its line, so that a function's lines are counted together."""
    name, _, line = frame.rpartition(":")
    return f"{name})" if line.rstrip(")").isdigit() else frame


if __name__ == "__main__":
    sys.exit(main())
