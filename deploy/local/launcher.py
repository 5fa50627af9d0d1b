"""The foreground process of `make run`: starts the pipeline, looks after it, stops it on Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import signal
import sys
import time
import uuid
from types import FrameType
from typing import Any

from deploy.local.errors import LocalError, StopRequestedError
from deploy.local.pipeline import LocalPipeline
from deploy.local.waiting import Flag
from midstream.logs import configure_logs
from midstream.settings import MIB, Settings, SettingsError, load_settings

_LOOK_S = 0.5


def say(text: str) -> None:
    """Tell the user one thing. A terminal that has gone away must not stop the pipeline."""
    with contextlib.suppress(OSError, ValueError):
        print(text, flush=True)


def main() -> int:
    """Run the pipeline until told to stop. Exit code 0 after a stop, 1 when it could not run."""
    stop, hurry = Flag(), Flag()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        pipeline = LocalPipeline(load_settings(), say, stop)
    except (LocalError, SettingsError) as error:
        return _refuse(error)
    return _run(pipeline, stop, hurry)


def _run(pipeline: LocalPipeline, stop: Flag, hurry: Flag) -> int:
    began = time.monotonic()
    code = 0
    try:
        _log_to_file(pipeline.settings)
        facts = pipeline.start()
        say(_announcement(pipeline.settings, facts, time.monotonic() - began))
        while not stop.wait(_LOOK_S):
            pipeline.look()
    except StopRequestedError:
        pass
    except LocalError as error:
        code = _refuse(error)
    finally:
        stop.set()
        pipeline.stop(hurry)
    return code


def _refuse(error: Exception) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in str(error).splitlines():
            print(f"midstream: {line}", file=sys.stderr, flush=True)
    return 1


def _log_to_file(settings: Settings) -> None:
    """Our own log lines go beside those of the other processes; the terminal gets :func:`say` only."""
    configure_logs(settings, "launcher")
    root = logging.getLogger()
    file = logging.handlers.RotatingFileHandler(
        settings.home / "logs" / "launcher.log", maxBytes=10 * MIB, backupCount=3, encoding="utf-8"
    )
    file.setFormatter(root.handlers[0].formatter)
    root.handlers[:] = [file]


def _announcement(settings: Settings, facts: dict[str, Any], seconds: float) -> str:
    base, token_file = facts["base_url"], facts["token_file"]
    mid = f"START:{uuid.uuid4().hex}"
    event = {
        "eid": "START",
        "ets": int(time.time() * 1000),
        "ver": "3.0",
        "mid": mid,
        "actor": {"id": "someone", "type": "User"},
        "context": {"channel": "try", "env": "home"},
        "edata": {"type": "app"},
    }
    body = json.dumps({"id": "api.telemetry", "ver": "3.0", "events": [event]}, separators=(",", ":"))
    lines = [
        "",
        f"Midstream is ready ({seconds:.1f} s).",
        f"  API         {base}    (documentation {base}/docs, metrics {base}/metrics)",
        f"  ClickHouse  {facts['clickhouse']}",
        f"  Token       {token_file} (credential demo)",
        "",
        "Send an event, then look at it:",
        f"  curl -sS {base}/v1/telemetry -H 'Content-Type: application/json' "
        f"-H \"Authorization: Bearer $(cat {_quoted(token_file)})\" -d '{body}'",
    ]
    if not settings.clickhouse:
        columns = "mid, eid, channel, received_at, stored_at"
        query = f"SELECT {columns} FROM events WHERE mid = '{mid}' FORMAT Vertical"  # noqa: S608 - printed only
        address = f"http://127.0.0.1:{settings.local_clickhouse_port}/?database=midstream"
        lines.append(f"  curl -sS '{address}' -d \"{query}\"")
    lines += ["", "Ctrl-C stops everything; the data stays."]
    return "\n".join(lines)


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"
