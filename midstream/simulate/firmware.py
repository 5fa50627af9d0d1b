"""What the firmware of one device does, without the network: it says what is to be sent, and is told what came back.

A device reports at its interval what has changed; after a restart it reports all, with ``override``. It loses its
network now and then, and afterwards sends what it kept, newest first. An answer that it did not get makes it send the
same report again.
"""

from __future__ import annotations

import random
from typing import Any

from midstream.simulate.clock import Clock, draw_clock

Body = dict[str, Any]

INPUTS = ("HDMI 1", "HDMI 2", "USB-C", "Airplay", "Présentation")
_RESTART = 1 / 300
_LOSES_NETWORK = 1 / 150
_AWAY_REPORTS = 4
"""A device keeps so many reports while it is away, and drops the oldest."""

_TROUBLE = 1 / 100
_GOES_OFF = 1 / 200


class Firmware:
    """One device. Times are microseconds since 1970, by the true clock; the device's own may be another."""

    def __init__(self, number: int, seed: int, version: str = "1.0.0") -> None:
        self.number = number
        self.sn = f"SIM-{seed}-{number:06d}"
        self.version = version
        self._choice = random.Random(f"{seed}/{number}")
        self.clock: Clock = draw_clock(self._choice)
        self._booted_us: int | None = None
        self._said: Body = {}
        self._kept: list[Body] = []
        self._away = 0

    def registration(self, hardware_key: str) -> Body:
        """Return the body that it registers with."""
        return {
            "sn": self.sn,
            "firmware_version": self.version,
            "hardware_key": hardware_key,
            "mac": ":".join(f"{(self.number >> shift) & 0xFF:02x}" for shift in (40, 32, 24, 16, 8, 0)),
            "name": f"Room {self.number}",
            "details": {"cpu": "armv7", "ram_mb": 512},
        }

    def due(self, now_us: int) -> list[Body]:
        """Return the reports that it sends at this turn, in their order: mostly one, none while it has no network."""
        report = self._report(now_us)
        if self._away:
            self._away -= 1
            self._kept = [*self._kept, report][-_AWAY_REPORTS:]
            if self._away:
                return []
            reports, self._kept = self._kept[::-1], []
            return reports
        if self._choice.random() < _LOSES_NETWORK:
            self._away = self._choice.randint(1, _AWAY_REPORTS + 2)
        return [report]

    def loses_answer(self) -> bool:
        """Say whether the answer to a report does not reach it, so that it sends the report again."""
        return self._choice.random() < 0.01

    def reconnects(self) -> bool:
        """Say whether it opens a new connection for its next report."""
        return self._choice.random() < 0.02

    def updates(self) -> bool:
        """Say whether it installs the newer firmware that it is offered at once, or at another report."""
        return self._choice.random() < 0.2

    def _report(self, now_us: int) -> Body:
        restarts = self._booted_us is None or self._choice.random() < _RESTART
        if restarts:
            self._booted_us = now_us
        values = self._measured(now_us)
        body: Body = {"status": "online"}
        if restarts:
            body |= {"telemetries": values, "override": True}
        else:
            changed: Body = {key: value for key, value in values.items() if self._said.get(key) != value}
            gone: Body = dict.fromkeys(self._said.keys() - values.keys())
            body["telemetries"] = changed | gone
        self._said = values
        if self._choice.random() < _TROUBLE:
            body |= {"status": "error", "message": f"lamp {self._choice.randint(1, 4)} reports {now_us % 97} faults"}
        elif self._choice.random() < _GOES_OFF:
            body["status"] = "offline"
        said = self.clock.reads(now_us)
        if said is not None:
            body["timestamp"] = said
        return body

    def _measured(self, now_us: int) -> Body:
        choice = self._choice
        values: Body = {
            "uptime_s": (now_us - (self._booted_us or now_us)) // 1_000_000,
            "temperature_c": round(choice.gauss(41, 4), 1),
            "fan.rpm": choice.randrange(0, 3_000, 50),
            "lamp/hours": 1_000 + self.number + (now_us // 3_600_000_000) % 1_000,
            "mute": choice.random() < 0.1,
            "volume": choice.randint(0, 100),
        }
        if choice.random() < 0.7:  # without a signal there is no input, and the key is removed
            values["input"] = choice.choice(INPUTS)
        return values
