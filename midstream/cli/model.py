"""``midstream model``: kinds of devices, whose hardware key the firmware of each registers with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from midstream.cli._common import Refused, print_json, print_table, read_settings

if TYPE_CHECKING:
    from midstream.registry.fleet.models import Models


@contextmanager
def _open_models() -> Iterator[Models]:
    """Open the registry's models, created or upgraded first; what the registry refuses ends the command."""
    from midstream.registry.engine import open_engine
    from midstream.registry.errors import RegistryError
    from midstream.registry.fleet.models import Models
    from midstream.registry.migrate import migrate

    settings = read_settings()
    try:
        migrate(settings)
        engine = open_engine(settings)
        try:
            yield Models(engine)
        finally:
            engine.dispose()
    except RegistryError as error:
        raise Refused(str(error)) from None


@click.group()
def model() -> None:
    """Device models, whose devices register with the hardware key."""


@model.command()
@click.argument("name")
@click.option(
    "--interval-s",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    help="Seconds between two reports of a healthy device; one that is silent for longer is stale.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an object: name, hardware_key.")
def create(name: str, interval_s: int, as_json: bool) -> None:
    """Create a model and print its hardware key, which is shown this once."""
    with _open_models() as models:
        new = models.create(name, interval_s)
    if as_json:
        print_json({"name": new.name, "hardware_key": new.hardware_key})
    else:
        click.echo(new.hardware_key)


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def list_models(as_json: bool) -> None:
    """List all models; hardware keys are not shown again."""
    with _open_models() as models:
        found = models.list_all()
    if as_json:
        print_json(
            [
                {"name": one.name, "interval_s": one.interval_s, "created_at": one.created_at.isoformat()}
                for one in found
            ]
        )
    else:
        print_table(
            ["NAME", "INTERVAL", "CREATED"],
            [[one.name, f"{one.interval_s} s", one.created_at.isoformat(timespec="seconds")] for one in found],
        )
