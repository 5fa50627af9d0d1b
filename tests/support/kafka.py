"""A real Kafka alone, for tests that stop, freeze and kill it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from deploy.local.broker import format_storage
from deploy.local.home import open_home
from deploy.local.waiting import Flag, Waiter
from midstream.kafka.admin import ensure_topics
from midstream.settings import Settings
from tests.support.pipeline import PARTITIONS
from tests.support.ports import port_settings

ROOT = Path(__file__).resolve().parents[2]


class Broker:
    """One Kafka broker on free ports and a folder of its own. ``settings`` lead to it."""

    def __init__(self, home: Path, **settings: object) -> None:
        ports: dict[str, object] = {**port_settings()}
        given: dict[str, object] = {"home": home, "kafka": "", "registry": "", "partitions": PARTITIONS}
        self.settings = Settings.model_validate({**given, **ports, **settings})
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and wait until it has its topics."""
        home = open_home(self.settings.home)
        await asyncio.to_thread(format_storage, self.settings, home, print, Waiter(Flag()))
        names = ("home", "local_kafka_port", "local_kafka_controller_port")
        env = {**os.environ, **{f"MIDSTREAM_{name.upper()}": str(getattr(self.settings, name)) for name in names}}
        self._spawn(env, home.logs / "kafka-test.log")
        await ensure_topics(self.settings, timeout_s=60)

    def _spawn(self, env: dict[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local.broker"], cwd=ROOT, env=env, stdout=output, stderr=output
            )

    def freeze(self) -> None:
        """Stop its process without ending it: connections stay, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait, 20)
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
