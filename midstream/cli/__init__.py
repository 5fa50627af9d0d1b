"""The command ``midstream``.

Each module of this package whose name does not begin with ``_`` is one command or group of commands: it has a Click
command of the module's own name. Adding a file adds a command. Modules import what is
heavy inside their functions, so that ``--help`` and the small commands answer at once.

What creates something prints it on stdout and nothing else; messages go to stderr. Exit 0: done; 1: refused, with a
reason; 2: wrong usage or settings.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys

import click


class _Modules(click.Group):
    """A group whose commands are this package's modules, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command if isinstance(command, click.Command) else None


@click.group(cls=_Modules, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="midstream", prog_name="midstream")
def cli() -> None:
    """Operate Midstream: it works on the home in MIDSTREAM_HOME, of a running pipeline too."""


def main() -> None:
    """Run the command; the entry point of ``midstream``."""
    # What a command has to say it says itself; libraries' warnings would be lines nobody asked for.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        cli(prog_name="midstream")
    except BrokenPipeError:  # the reader of our output has gone, such as `head`
        sys.stderr.close()
        sys.exit(1)
