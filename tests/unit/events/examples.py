"""The examples beside the schemas, as the tests of this folder use them."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[3] / "schemas" / "telemetry" / "3.0" / "examples"

VALID = sorted(FOLDER.glob("*/valid/*.json"))
INVALID = sorted(FOLDER.glob("*/invalid/*.json"))


def example_id(path: Path) -> str:
    return f"{path.parts[-3]}/{path.stem}"


def full_events() -> dict[str, dict[str, Any]]:
    """Return by eid an event that has every field which the specification knows."""
    envelope = json.loads((FOLDER / "envelope" / "valid" / "full.json").read_text("utf-8"))
    events = {}
    for path in VALID:
        if path.stem == "full" and path.parts[-3] != "envelope":
            event = json.loads(path.read_text("utf-8"))
            extra = {key: envelope[key] for key in ("object", "tags", "context")}
            events[event["eid"]] = {**event, **extra}
    heartbeat = json.loads((FOLDER / "heartbeat" / "valid" / "minimal.json").read_text("utf-8"))
    return {**events, "HEARTBEAT": heartbeat}
