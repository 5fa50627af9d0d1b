"""What the commands share that bring many rows in from a file: progress, and what became of the rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from midstream.cli._common import Refused, print_json, printable, say

if TYPE_CHECKING:
    from midstream.row_files import Refusal

_MAX_ERRORS_SHOWN = 100


@dataclass(slots=True)
class Outcome:
    """What became of a file's rows. ``errors`` holds the first refusals only."""

    accepted: int = 0
    refused: int = 0
    errors: list[Refusal] = field(default_factory=list)

    def refuse(self, refusal: Refusal) -> None:
        """Count a row that was not taken."""
        self.refused += 1
        if len(self.errors) < _MAX_ERRORS_SHOWN:
            self.errors.append(refusal)

    def end(self, failure: str, done: str, as_json: bool) -> None:
        """Tell what became of the rows, and end the command with exit code 1 unless all were taken.

        Args:
            failure: why the rest of the file was not taken; "" when all was read.
            done: what accepted rows are, such as "loaded".
            as_json: print an object, too.
        """
        for refusal in self.errors:
            say(printable(f"line {refusal.line}: {refusal.code}: {refusal.message}"))
        if self.refused > len(self.errors):
            say(f"and {self.refused - len(self.errors)} more")
        if as_json:
            print_json(asdict(self))
        if failure:
            raise Refused(failure)
        say(f"{self.accepted} {done}, {self.refused} refused")
        if self.refused:
            sys.exit(1)


@contextmanager
def shown_progress(file: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how much of a file was read; yield what takes the number of bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    shown = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    with shown as progress:
        task = progress.add_task("loading", total=_size(file))
        yield lambda position: progress.update(task, completed=position)


def _size(file: BinaryIO) -> int | None:
    """Return the file's size in bytes; None for a pipe."""
    if not file.seekable():
        return None
    size = file.seek(0, 2)
    file.seek(0)
    return size
