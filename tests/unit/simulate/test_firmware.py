"""Firmware without a network."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime
from itertools import chain
from typing import Any

from midstream.devices.report import read_report
from midstream.devices.state import state_of
from midstream.simulate.clock import Clock, draw_clock
from midstream.simulate.firmware import Firmware

NOW_US = 1_790_000_000_000_000
INTERVAL_US = 10_000_000


def life(firmware: Firmware, turns: int) -> list[list[dict[str, Any]]]:
    return [firmware.due(NOW_US + turn * INTERVAL_US) for turn in range(turns)]


def test_a_device_of_a_number_and_seed_does_the_same_again() -> None:
    assert life(Firmware(7, 1), 200) == life(Firmware(7, 1), 200)
    assert life(Firmware(7, 1), 20) != life(Firmware(8, 1), 20)
    assert life(Firmware(7, 1), 20) != life(Firmware(7, 2), 20)


def test_its_first_report_replaces_all_and_the_later_say_what_changed() -> None:
    for number in range(30):
        turns = life(Firmware(number, 1), 50)
        sent = [body for turn in turns for body in turn]
        assert sent[0]["override"] is True
        others = [body for body in sent if not body.get("override")]
        assert others
        assert all("telemetries" in body for body in others)


def test_whatever_it_sends_is_a_report() -> None:
    seen: Counter[str] = Counter()
    for number in range(50):
        for turn in life(Firmware(number, 3), 200):
            seen["none" if not turn else "several" if len(turn) > 1 else "one"] += 1
            for body in turn:
                report = read_report("d", body, NOW_US, "r")
                seen[report.status] += 1
                seen["override" if report.override else "merge"] += 1
                seen["null"] += None in report.values.values()
                seen["message"] += bool(report.message)
                seen["no clock"] += report.timestamp_us is None
    assert all(seen[kind] for kind in ("none", "one", "several", "online", "offline", "error", "override", "null"))
    assert all(seen[kind] for kind in ("message", "no clock"))
    assert seen["online"] > 0.9 * (seen["merge"] + seen["override"])


def test_what_was_kept_while_away_comes_newest_first_and_makes_the_same_state() -> None:
    for number in range(200):
        firmware = Firmware(number, 4)
        if firmware.clock.offset_us is None or abs(firmware.clock.offset_us) > 240_000_000:
            continue
        turns = life(firmware, 60)
        for turn in turns:
            stamps = [body["timestamp"] for body in turn]
            assert stamps == sorted(stamps, reverse=True)
        reports = [read_report("d", body, NOW_US + 10**9, str(i)) for i, body in enumerate(chain(*turns))]
        assert state_of(reports) == state_of(reports[::-1])


def test_clocks_are_mostly_right() -> None:
    choice = random.Random(1)
    offsets = [draw_clock(choice).offset_us for _ in range(10_000)]
    right = sum(offset is not None and abs(offset) <= 2_000_000 for offset in offsets)
    assert 8_300 < right < 8_700
    assert 400 < offsets.count(None) < 600
    assert any(offset and offset > 300 * 24 * 3_600_000_000 for offset in offsets)
    assert any(offset and offset < -3_600_000_000 for offset in offsets)


def test_a_clock_reads_its_own_time() -> None:
    assert Clock(None).reads(NOW_US) is None
    assert Clock(1_500_000).reads(0) == "1970-01-01T00:00:01.500000Z"
    shown = Clock(-1).reads(NOW_US)
    assert shown is not None
    assert datetime.fromisoformat(shown).timestamp() * 1e6 == NOW_US - 1


def test_a_registration_has_what_is_asked_for() -> None:
    body = Firmware(258, 9).registration("key")
    assert body["sn"] == "SIM-9-000258"
    assert body["mac"] == "00:00:00:00:01:02"
    assert body["hardware_key"] == "key"
    assert body["firmware_version"] == "1.0.0"
