"""Kafka with listeners beside its own, each advertised at a proxy's port: ``CHAOS_LISTENERS=NAME:REAL:SHOWN,...``."""

from __future__ import annotations

import os

from deploy.local import broker
from midstream.settings import Settings

_own = broker.server_properties


def with_listeners(text: str, listeners: str) -> str:
    """Return Kafka's properties with more listeners.

    Args:
        text: the properties as the product has them.
        listeners: ``NAME:REAL:SHOWN,...``: Kafka listens on port REAL and tells clients to connect to SHOWN.
    """
    lines = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        for listener in listeners.split(","):
            name, real, shown = listener.split(":")
            if key == "listeners":
                value += f",{name}://127.0.0.1:{real}"
            elif key == "advertised.listeners":
                value += f",{name}://127.0.0.1:{shown}"
            elif key == "listener.security.protocol.map":
                value += f",{name}:PLAINTEXT"
        lines.append(f"{key}={value}\n")
    return "".join(lines)


def _properties(settings: Settings, data: str) -> str:
    return with_listeners(_own(settings, data), os.environ["CHAOS_LISTENERS"])


if __name__ == "__main__":
    broker.server_properties = _properties
    broker.main()
