"""``python -m tests.faults``: watches a healthy pipeline under load, then breaks it in five ways.

No alert may fire while it is healthy, and exactly one must name each fault within two minutes. A row each; exit code 1
when one is not so.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from midstream.logs import configure_logs
from midstream.settings import Settings
from tests.chaos.world import Shape, World, can_mount
from tests.faults.kinds import FAULTS, SPOOL_BYTES, Fault
from tests.faults.load import carrying
from tests.faults.watch import Watch, alert_name, watching
from tests.support.prometheus import why_no_prometheus

LIMIT_S = 120.0
"""Within which a fault must be named."""

_LAST_S = 150.0
"""How long a fault lasts: what fires after the limit counts against it, too."""
_QUIET_S = 300.0
_SETTLE_S = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; exit code 1 if any fault was not named by its alert alone, or the healthy pipeline was blamed."""
    options = _parser().parse_args(arguments)
    chosen = [fault for fault in FAULTS if not options.only or fault.name in options.only.replace(",", " ").split()]
    if problem := why_no_prometheus():
        print(problem, file=sys.stderr)
        return 2
    if not can_mount():
        for fault in [fault for fault in chosen if fault.needs_mount]:
            print(f"{fault.name}: left out, as mounting a small file system needs root", file=sys.stderr)
            chosen.remove(fault)
    for name in [name for name in os.environ if name.startswith("MIDSTREAM_")]:
        del os.environ[name]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    configure_logs(Settings.model_validate({"log_level": "warning"}), "faults")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that is away is what is wanted here
    try:
        return run(chosen, options.healthy_s, options.rate)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Break what alerts must name.")
    parser.add_argument("--only", default="", help=f"names of faults; none: all of {[one.name for one in FAULTS]}")
    parser.add_argument("--healthy-s", type=float, default=300.0, help="healthy seconds before (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="events a second (default: %(default)s)")
    return parser


def run(faults: Sequence[Fault], healthy_s: float, rate_events_s: float) -> int:
    """Watch a healthy pipeline, then one with each fault after the other."""
    at_most_s = healthy_s + len(faults) * (_LAST_S + _QUIET_S) + 300
    shape = Shape(tmpfs={"spool": SPOOL_BYTES} if can_mount() else {})
    failed = 0
    with World(shape) as world:
        world.start()
        with carrying(world, rate_events_s, at_most_s), watching(world) as watch:
            blamed = watch.during(healthy_s)
            _tell(f"healthy, {healthy_s:.0f} s at {rate_events_s:.0f} events/s", "none", blamed, not blamed)
            failed += bool(blamed)
            for fault in faults:
                failed += not _try(world, watch, fault)
    return 1 if failed else 0


def _try(world: World, watch: Watch, fault: Fault) -> bool:
    wanted = alert_name(fault.alert, fault.labels)
    fired: dict[str, float] = {}
    try:
        with fault.inject(world):
            fired = watch.during(_LAST_S)
        afterwards = watch.until_quiet(_QUIET_S)
    except AssertionError as error:
        _tell(f"{fault.name}: {error}", wanted, fired, False)
        return False
    good = set(fired) == {wanted} and fired[wanted] <= LIMIT_S and set(afterwards) <= {wanted}
    late = {f"{name} (afterwards)": after_s for name, after_s in afterwards.items() if name != wanted}
    _tell(fault.name, wanted, fired | late, good)
    time.sleep(_SETTLE_S)
    return good


def _tell(what: str, wanted: str, fired: dict[str, float], good: bool) -> None:
    seen = ", ".join(f"{name} after {after_s:.0f} s" for name, after_s in fired.items()) or "none"
    print(f"{'ok  ' if good else 'FAIL'}  {what:40}  {seen}" + ("" if good else f"  (wanted: {wanted})"), flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
