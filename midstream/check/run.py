"""All checks, side by side, each bounded in time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTimeError

from midstream.check.clickhouse import check_clickhouse
from midstream.check.kafka import check_kafka
from midstream.check.machine import check_disk, check_packages
from midstream.check.registry import check_registry
from midstream.check.result import Result, fail, ok
from midstream.settings import Settings

TIMEOUT_S = 5.0
"""Of each wait for an answer. The checks of a store make a few, one after the other."""

_LIMIT_S = 3 * TIMEOUT_S

_CHECKS: dict[str, Callable[[Settings, float], list[Result]]] = {
    "registry": check_registry,
    "kafka": check_kafka,
    "clickhouse": check_clickhouse,
    "disk": check_disk,
    "packages": check_packages,
}


def run_checks(settings: Settings) -> list[Result]:
    """Return what every check found, in a fixed order."""
    results = [ok("settings", f"valid; home {settings.home}"), _schemas(settings)]
    with ThreadPoolExecutor(len(_CHECKS)) as pool:
        running = {name: pool.submit(check, settings, TIMEOUT_S) for name, check in _CHECKS.items()}
        for name, future in running.items():
            try:
                results += future.result(_LIMIT_S)
            except NotInTimeError:
                results.append(fail(name, f"no answer in {_LIMIT_S:.0f} s", "look at its log, or at the network to it"))
    return results


def _schemas(settings: Settings) -> Result:
    from midstream.events.schemas import SchemaError, load_schemas

    try:
        schemas = load_schemas(settings.schemas)
    except SchemaError as error:
        return fail("schemas", str(error), f"correct the files in {settings.schemas} (MIDSTREAM_SCHEMAS)")
    return ok("schemas", f"{len(schemas)} event types")
