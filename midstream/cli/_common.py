"""What the commands share: settings, the registry, refusals, output."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from midstream.registry.admin_log import Outcome
    from midstream.registry.credentials import Credentials
    from midstream.settings import Settings


class Refused(click.ClickException):
    """Ends the command with exit code 1 and a reason on stderr."""

    exit_code = 1


def read_settings() -> Settings:
    """Read the settings; wrong ones are wrong usage (exit code 2)."""
    from midstream.settings import SettingsError, get_settings

    try:
        return get_settings()
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


@contextmanager
def _upgraded_registry() -> Iterator[Settings]:
    """Create or upgrade the registry first; what it refuses ends the command."""
    from midstream.registry.errors import RegistryError
    from midstream.registry.migrate import migrate

    settings = read_settings()
    act_as_system_user()
    try:
        migrate(settings)
        yield settings
    except RegistryError as error:
        raise Refused(str(error)) from None


@contextmanager
def open_credentials() -> Iterator[Credentials]:
    """Open the registry's credentials, created or upgraded first; what the registry refuses ends the command."""
    from midstream.registry.credentials import Credentials

    with _upgraded_registry() as settings:
        credentials = Credentials(settings)
        try:
            yield credentials
        finally:
            credentials.close()


@contextmanager
def open_registry() -> Iterator[Engine]:
    """Open the registry, created or upgraded first; what it refuses ends the command."""
    from midstream.registry.engine import open_engine

    with _upgraded_registry() as settings:
        engine = open_engine(settings)
        try:
            yield engine
        finally:
            engine.dispose()


def act_as_system_user() -> None:
    """Have the admin log name who runs this command, on which machine."""
    from midstream.registry.admin_log import Actor, act_as

    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        name = str(os.getuid())
    act_as(Actor("system_user", name, socket.gethostname()))


@contextmanager
def on_record(action: str, object_: str, **details: Any) -> Iterator[None]:
    """Write an act outside of the registry into the admin log: before it that it is begun, after it how it ended.

    What cannot be written down is not done.
    """
    from midstream.registry.admin_log import note_alone

    def write(outcome: Outcome) -> None:
        with open_registry() as engine:
            note_alone(engine, action, object_, outcome, **details)

    write("begun")
    try:
        yield
    except BaseException:
        try:
            write("failed")
        except Refused as unwritten:  # why the act itself failed is to be heard
            say(f"the admin log has no row of the failure: {unwritten.message}")
        raise
    write("done")


def say(message: str) -> None:
    """Print a message for people, on stderr."""
    click.echo(message, err=True)


def print_json(value: Any) -> None:
    """Print a value for programs; in ASCII, so that nothing in it can be no text, or a terminal's command."""
    click.echo(json.dumps(value))


def printable(text: str) -> str:
    """Return text of others as it may be shown on a terminal: what is no printable character is escaped."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns of their width, left-aligned."""
    widths = [max(len(line[index]) for line in [titles, *rows]) for index in range(len(titles))]
    for line in [titles, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
