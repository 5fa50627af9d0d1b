"""``python -m tests.drill``: runs the drill and prints a report; exit code 1 when anything is not as it must be."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from types import FrameType

from midstream.logs import configure_logs
from midstream.settings import Settings
from tests.drill.run import Drill, Plan, Report


def main() -> int:
    """Run; exit code 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--rate", type=float, default=Plan.events_s, help="events a second (default: %(default)s)")
    parser.add_argument(
        "--load", type=float, default=Plan.load_s, help="seconds of load at a time (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=Plan.seed, help="of the events (default: %(default)s)")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("MIDSTREAM_")]:
        del os.environ[name]  # what the one who runs this has set is not what is drilled
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    configure_logs(Settings.model_validate({"log_level": "warning"}), "drill")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that is away is part of this
    drill = Drill(Plan(options.rate, options.load, seed=options.seed), lambda text: print(text, flush=True))
    try:
        report = drill.run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 - whatever it is, the drill has failed; its report says how far it came
        report = drill.report
        report.faults.append(f"{type(error).__name__}: {error}")
    _print(report)
    return 1 if report.faults else 0


def _print(report: Report) -> None:
    print("\nseconds")
    for step, seconds in report.seconds.items():
        print(f"  {seconds:7.1f}  {step}")
    for disaster, counts in report.counts.items():
        names = ("acknowledged", "stored", "duplicate", "rejected", "lost", "double", "invented", "unaccounted")
        print(f"\n{disaster}: " + ", ".join(f"{name} {counts[name]:,}" for name in names))
    print("\nnot recoverable")
    for lost in report.lost:
        print(f"  {lost}")
    print("\nFAILED" if report.faults else "\nas clients were told: counts, mids, objects, devices, records, tokens")
    for fault in report.faults:
        print(f"  {fault}")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
