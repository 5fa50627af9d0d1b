"""``midstream simulate``: devices that do not exist, for trying out and for measuring."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from midstream.cli._common import Refused, print_json, print_table, read_settings, say

if TYPE_CHECKING:
    from midstream.settings import Settings
    from midstream.simulate.fleet import Fleet

_VISIBLE_S = 60.0


@click.group()
def simulate() -> None:
    """Simulate those who send to the pipeline."""


@simulate.command()
@click.option("--devices", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option(
    "--rate",
    "rate_per_s",
    type=click.FloatRange(0.01, 100_000),
    help="Reports a second of all devices together; default: one a device every ten seconds.",
)
@click.option("--seconds", type=click.FloatRange(1, 24 * 3600), default=60, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed is another fleet.")
@click.option("--url", help="Where collector and api are; default: this machine, the port of the settings.")
@click.option("--hardware-key", help="Of the model that the devices are of; default: one of the home's own.")
@click.option(
    "--keys",
    "keys_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where devices keep their access keys from run to run; default: a file in the home.",
)
@click.option("--connections", type=click.IntRange(1, 10_000), default=64, show_default=True, help="At once, in all.")
@click.option("--check", is_flag=True, help="Compare the states in ClickHouse with what was reported.")
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
def fleet(
    devices: int,
    rate_per_s: float | None,
    seconds: float,
    seed: int,
    url: str | None,
    hardware_key: str | None,
    keys_file: Path | None,
    connections: int,
    check: bool,
    as_json: bool,
) -> None:
    """Register devices and let them report as firmware does.

    They restart and then replace their whole state, lose the network and send later what they kept, send again what got
    no answer; some clocks are wrong, and some devices have none. They fetch and report configurations, commands,
    licences and firmware. What they registered as is kept, so that the next run is the same fleet. Ctrl-C ends it.
    Exit 1: a call was refused that should not have been, or a state is not what was reported.
    """
    from midstream.clickhouse.client import ClickHouseError
    from midstream.devices.report import ReportError
    from midstream.registry.errors import RegistryError
    from midstream.simulate.credentials import CredentialsError, read_kept, write_kept
    from midstream.simulate.fleet import Fleet, Plan
    from midstream.simulate.model import own_model

    settings = read_settings()
    path = keys_file or settings.home / "simulate" / f"fleet-{seed}.json"
    plan = Plan(
        base_url=(url or f"http://127.0.0.1:{settings.port}").rstrip("/"),
        devices=devices,
        rate_per_s=rate_per_s or devices / 10,
        seconds=seconds,
        seed=seed,
        connections=connections,
    )
    try:
        kept = read_kept(path)
        if hardware_key:
            kept.hardware_key = hardware_key
        elif not kept.hardware_key:
            kept.hardware_key = own_model(settings, seed, devices / plan.rate_per_s)
        simulated = Fleet(plan, kept, say)
        try:
            _run(simulated, plan.base_url)
        finally:
            write_kept(path, kept)
        wrong = _check(settings, simulated) if check else None
    except (CredentialsError, ReportError, RegistryError, ClickHouseError) as error:
        raise Refused(str(error)) from None
    _show(simulated, wrong, as_json)


def _check(settings: Settings, simulated: Fleet) -> list[str]:
    from midstream.clickhouse.client import open_client
    from midstream.simulate.check import wrong_states

    clickhouse = open_client(settings)
    try:
        return wrong_states(simulated.devices, clickhouse.rows, _VISIBLE_S)
    finally:
        clickhouse.close()


def _run(simulated: Fleet, base_url: str) -> None:
    import aiohttp

    from midstream.simulate.device import RefusedError

    try:
        asyncio.run(simulated.run())
    except KeyboardInterrupt:
        say("ended early")
    except BaseExceptionGroup as group:
        first = _first(group)
        if isinstance(first, RefusedError):
            raise Refused(str(first)) from None
        if isinstance(first, aiohttp.ClientError | OSError):
            raise Refused(f"{base_url} does not answer: {first}") from None
        raise


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _show(simulated: Fleet, wrong: list[str] | None, as_json: bool) -> None:
    found: dict[str, Any] = {
        "devices": len(simulated.devices),
        **simulated.tally.summary(),
        "removed": len(simulated.removed),
        "refused": simulated.refused,
    }
    if wrong is not None:
        found |= {"right_states": len(simulated.devices) - len(wrong), "wrong_states": wrong[:100]}
    if as_json:
        print_json(found)
    else:
        rows = [[key, str(value)] for key, value in found.items() if key != "refused"]
        print_table(["", ""], rows)
        for line in simulated.refused[:10]:
            say(f"refused: {line}")
    if wrong:
        raise Refused(f"{len(wrong)} devices have another state than they reported")
    if simulated.refused:
        raise Refused("some calls were refused that should not have been")
