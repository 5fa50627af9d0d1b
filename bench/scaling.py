"""How ``store`` grows with its workers, and what their coming and going costs: ``python -m bench.scaling --help``.

Starts pipelines of its own. The workers reach the engine through a proxy that answers each insert later, so that they
wait for it as for one behind a network, not for the cores of this machine.

Part ``workers``: a backlog of sealed blocks is made while no answer comes; then all of it is let go, with 1, 2 and 4
workers in turns. Part ``rebalance``: under a steady load a worker joins, leaves, is killed and started anew, and
is killed, without and with a name of its own (``MIDSTREAM_WORKER_ID``).

After each run the counts have to be the sender's, and ``midstream audit`` has to prove them: exit code 1 if not.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import rebalance, workers
from bench.control import parse_us_per_event
from bench.pipeline import bench_folder
from bench.report import Table, write_json

PARTS = {"workers": workers.run, "rebalance": rebalance.run}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3, help="of each number of workers")
    parser.add_argument("--events", type=int, default=20_000, help="of a backlog")
    parser.add_argument("--block-rows", type=int, default=200, help="events of a block of the backlog")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="numbers of workers, the least first")
    parser.add_argument("--insert-ms", type=float, default=200.0, help="that an insert of the backlog takes longer")
    parser.add_argument("--bytes-per-s", type=float, default=0, help="bound of what workers send to it; 0: none")
    parser.add_argument("--rate", type=float, default=500, help="events a second beside which workers come and go")
    parser.add_argument("--steady-insert-ms", type=float, default=50, help="as --insert-ms, beside that load")
    parser.add_argument("--window-s", type=float, default=25, help="that is looked at after each change of the workers")
    parser.add_argument("--folder", type=Path, help="where data is kept meanwhile; default: one for temporary files")
    parser.add_argument("--json", type=Path, help="write the report there too")
    arguments = parser.parse_args()
    if max(arguments.workers) > arguments.partitions:
        parser.error("more workers than partitions have nothing to do")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped in order
    chosen = [arguments.only] if arguments.only else list(PARTS)
    report: dict[str, Any] = {"control_us": [round(parse_us_per_event(), 2)], "parts": {}}
    with (
        tempfile.TemporaryDirectory(prefix="midstream-bench-", dir=arguments.folder) as folder,
        bench_folder(Path(folder)) as held,
    ):
        for name in chosen:
            report["parts"][name] = asdict(PARTS[name](held, arguments))
            report["control_us"].append(round(parse_us_per_event(), 2))
    print(markdown(report))
    troubles = [f"{name}: {trouble}" for name, part in report["parts"].items() for trouble in part["troubles"]]
    for trouble in troubles:
        print(f"NOT EXACT  {trouble}")
    if arguments.json:
        write_json(arguments.json, report)
    else:
        print(json.dumps({name: part["data"] for name, part in report["parts"].items()}))
    return 1 if troubles else 0


def markdown(report: dict[str, Any]) -> str:
    """Return a report as Markdown."""
    control = ", ".join(f"{us:.2f}" for us in report["control_us"])
    tables = [Table(**table).markdown() for part in report["parts"].values() for table in part["tables"]]
    return "\n".join([f"Control (`orjson.loads`, us an event), before, between and after: {control}", "", *tables])


if __name__ == "__main__":
    sys.exit(main())
