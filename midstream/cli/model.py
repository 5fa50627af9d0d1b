"""``midstream model``: kinds of devices, whose hardware key the firmware of each registers with."""

from __future__ import annotations

import click

from midstream.cli._common import open_registry, print_json, print_table


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
    from midstream.registry.fleet.models import Models

    with open_registry() as engine:
        new = Models(engine).create(name, interval_s)
    if as_json:
        print_json({"name": new.name, "hardware_key": new.hardware_key})
    else:
        click.echo(new.hardware_key)


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def list_models(as_json: bool) -> None:
    """List all models; hardware keys are not shown again."""
    from midstream.registry.fleet.models import Models

    with open_registry() as engine:
        found = Models(engine).list_all()
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
