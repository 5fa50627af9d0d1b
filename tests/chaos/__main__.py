"""``python -m tests.chaos``: runs cases one after the other and prints a row each; ``--help`` says with what."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from midstream.logs import configure_logs
from midstream.settings import Settings
from tests.chaos.case import CASES, Plan
from tests.chaos.cases import load_all
from tests.chaos.results import Results, header, row
from tests.chaos.runner import run_case
from tests.support.pipeline import ROOT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; exit code 1 if any case failed, 130 after Ctrl-C."""
    load_all()
    options = _parser().parse_args(arguments)
    if options.list:
        width = max(map(len, CASES))
        print("\n".join(f"{case.name.ljust(width)}  {case.title}" for case in CASES.values()))
        return 0
    names = options.case.replace(",", " ").split() or list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"no such case: {', '.join(unknown)}; --list names all", file=sys.stderr)
        return 2
    try:
        seeds = [int(seed) for seed in options.seeds.replace(",", " ").split()]
    except ValueError:
        print("seeds are whole numbers", file=sys.stderr)
        return 2
    # What the one who runs this has set is not what is tested.
    for name in [name for name in os.environ if name.startswith("MIDSTREAM_")]:
        del os.environ[name]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    configure_logs(Settings.model_validate({"log_level": "warning"}), "chaos")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that is away is what is wanted here
    try:
        return _run(names, seeds, options)
    except KeyboardInterrupt:
        print("interrupted; what passed is kept, and the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Break the pipeline on purpose.")
    parser.add_argument("--case", default="", help="names of cases; none: all")
    parser.add_argument("--seeds", default="1 2 3", help="a run for each (default: %(default)s)")
    parser.add_argument("--events", type=int, default=Plan.events, help="least events of a run (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / ".chaos", help="folder of results (default: .chaos)")
    parser.add_argument("--fresh", action="store_true", help="run also what has passed with this code")
    parser.add_argument("--keep", action="store_true", help="keep each run's home")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    return parser


def _run(names: Sequence[str], seeds: Sequence[int], options: argparse.Namespace) -> int:
    results = Results(options.results)
    plan = Plan(events=options.events)
    failed = 0
    print(header(), flush=True)
    for seed in seeds:
        for name in names:
            before = None if options.fresh else results.passed(name, seed, plan.events)
            if before is not None:
                print(row(before, again=True), flush=True)
                continue
            logs = results.logs_of(name, seed)
            result = run_case(CASES[name], seed, plan, keep=options.keep, logs_to=logs)
            results.write(result)
            print(row(result), flush=True)
            failed += result.verdict == "failed"
    if failed:
        print(f"{failed} failed; results and logs in {options.results}", file=sys.stderr)
    return 1 if failed else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
