"""``python -m bench``, which ``make bench`` runs: everything is measured, on a pipeline of the bench's own.

Prints the report as Markdown and writes all runs as JSON; exit code 1 when a count was not exact.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from bench import part_cpu, part_growth, part_latency, part_limits, part_overload, part_peers, part_soak
from bench.control import parse_us_per_event
from bench.machine import describe
from bench.options import Options
from bench.pipeline import ROOT, BenchError, bench_folder
from bench.report import Part, Table, write_json
from midstream.logs import configure_logs
from midstream.settings import Settings

PARTS: dict[str, Callable[[Options], Part]] = {
    "cpu": part_cpu.run,
    "latency": part_latency.run,
    "overload": part_overload.run,
    "growth": part_growth.run,
    "limits": part_limits.run,
    "peers": part_peers.run,
}
FULL_PARTS = PARTS | {"soak": part_soak.run}


def main() -> int:
    """Run the parts; exit code 1 when figures are not to be believed or a part could not be run, 130 on Ctrl-C."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    configure_logs(Settings.model_validate({"log_level": "warning"}), "bench")
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    folder: Path = arguments.folder.absolute()
    path: Path = arguments.json or folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    try:
        with bench_folder(folder):
            report = _begin(arguments, folder)
            options = Options(
                arguments.runs, arguments.events, arguments.full, folder, arguments.peers_python.absolute(), say
            )
            for name in arguments.parts:
                if name in report["parts"]:
                    say(f"{name}: done before")
                    continue
                report["parts"][name] = _measure(FULL_PARTS[name], options)
                write_json(path, report)  # what is done stays when the rest is broken off
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: broken off" + f"; go on with --resume {path}" * path.exists(), file=sys.stderr)
        return 130
    print(markdown(report))
    troubles = [trouble for part in report["parts"].values() for trouble in part["troubles"]]
    for trouble in troubles:
        print(f"NOT EXACT  {trouble}")
    write_json(path, report)
    print(f"All runs: {path}")
    return 1 if troubles else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--only", default="", help=f"parts, separated by commas: {', '.join(FULL_PARTS)}")
    parser.add_argument("--runs", type=int, default=3, help="measured runs of everything")
    parser.add_argument("--events", type=int, default=40_000, help="events of a load that is sent without a pause")
    parser.add_argument("--full", action="store_true", help="the soak too, and 100 million stored events")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where data and reports are kept")
    parser.add_argument("--json", type=Path, help="the file of all runs; default: one in the folder, by the time")
    parser.add_argument("--resume", type=Path, help="go on with this file: parts that are in it are not run again")
    parser.add_argument(
        "--peers-python", type=Path, default=ROOT / ".venv-peers" / "bin" / "python", help="interpreter of the peers"
    )
    arguments = parser.parse_args()
    chosen = [name for name in arguments.only.split(",") if name]
    arguments.parts = chosen or list(FULL_PARTS if arguments.full else PARTS)
    if unknown := set(arguments.parts) - set(FULL_PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if arguments.runs < 1 or arguments.events < 1_000:
        parser.error("at least one run and 1,000 events")
    if arguments.resume:
        arguments.json = arguments.json or arguments.resume
    return arguments


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _begin(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the report to be filled, of which parts may be there."""
    if arguments.resume:
        report: dict[str, Any] = orjson.loads(arguments.resume.read_bytes())
        return report
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "machine": describe(folder),
        "parts": {},
    }


def _measure(run: Callable[[Options], Part], options: Options) -> dict[str, Any]:
    began, control_before = time.monotonic(), parse_us_per_event()
    part = run(options)
    return {
        "tables": [asdict(table) for table in part.tables],
        "troubles": part.troubles,
        "took_s": round(time.monotonic() - began, 1),
        "control_us": [control_before, parse_us_per_event()],
        "data": part.data,
    }


def markdown(report: dict[str, Any]) -> str:
    """Return a report as Markdown."""
    lines = ["# Midstream: what was measured", "", f"`{report['command']}`, {report['began']}", ""]
    lines += [f"- {name}: {value}" for name, value in report["machine"].items()]
    for name, part in report["parts"].items():
        before, after = part["control_us"]
        lines += ["", f"## {name}", ""]
        lines.append(
            f"{part['took_s']:.0f} s; control (`orjson.loads`, us an event) before {before:.2f}, after {after:.2f}"
        )
        for table in part["tables"]:
            lines += ["", Table(**table).markdown()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
