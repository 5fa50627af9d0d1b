"""``midstream exhaust``: datasets as partners download them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from midstream.cli._common import Refused, open_registry, print_json, printable, say
from midstream.cli._day import Day

if TYPE_CHECKING:
    from midstream.exhaust.findings import Report
    from midstream.exhaust.manifest import ManifestDay

_SHOWN = 100
_TIMEOUT_S = 60.0
_MAX_MANIFEST_BYTES = 16 * 1024 * 1024  # 31 days of 24 files take some 150 KB


@click.group()
def exhaust() -> None:
    """Datasets as partners download them."""


@exhaust.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--manifest", "source", metavar="FILE|URL", help="As GET .../manifest gives it; or its URL, with --key.")
@click.option(
    "--key",
    envvar="MIDSTREAM_LICENCE_KEY",
    show_envvar=True,
    help="Licence key for the URL. Better in the variable: others on the machine can see the arguments.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an object: what was found, and all that is wrong.")
def verify(file: Path, source: str | None, key: str | None, as_json: bool) -> None:
    """Prove that FILE, a download of a dataset, is whole and unaltered, and count its events.

    Every byte is checked: the archive, each day's SHA-256, each hour's events, their order and their time of receipt.
    Without --manifest against what the archive says of itself. Needs no home and no pipeline. Exit 0: proven; 1:
    something is wrong.
    """
    manifest = None if source is None else _read_manifest(source, key)
    report = _verify(file, manifest)
    if as_json:
        print_json(report.as_dict())
    else:
        _show(report)
    for note in report.notes:
        say(printable(f"note: {note}"))
    if not report.proven:
        sys.exit(1)


@exhaust.command()
@click.argument("dataset")
@click.argument("day", type=Day())
@click.option("--to", "last_day", type=Day(), help="The last day, inclusive. Default: DAY alone.")
@click.option("--resource", help="Of this resource only. Default: of all.")
@click.option("--reason", required=True, help="What partners read in the manifest.")
def rebuild(dataset: str, day: date, last_day: date | None, resource: str | None, reason: str) -> None:
    """Have days (UTC) of DATASET built anew at the next download, such as after an erase.

    The days get a new ETag, and their manifest says why.
    """
    from midstream.registry.exhaust.datasets import Datasets
    from midstream.registry.exhaust.revisions import Revisions

    last = day if last_day is None else last_day
    if last >= datetime.now(UTC).date():
        raise Refused("only a day before today can be built anew")
    with open_registry() as engine:
        count = Revisions(engine).add(Datasets(engine).get(dataset), resource, day, last, reason)
    say(f"{count} {'day' if count == 1 else 'days'} of {dataset} will be built anew")


def _verify(path: Path, manifest: tuple[ManifestDay, ...] | None) -> Report:
    from midstream.exhaust.verify import verify as verify_file

    try:
        with path.open("rb") as file, _shown_progress(path.stat().st_size) as told:
            return verify_file(file, manifest, told)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from None


@contextmanager
def _shown_progress(size_bytes: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    with shown as progress:
        # The file is read twice.
        task = progress.add_task("verifying", total=2 * size_bytes)
        yield lambda count: progress.advance(task, count)


def _show(report: Report) -> None:
    for finding in report.findings[:_SHOWN]:
        click.echo(printable(finding.line()))
    more = max(len(report.findings) - _SHOWN, 0) + report.dropped
    if more:
        click.echo(f"and {more:,} more")
    of = printable(f"{report.dataset} of {report.resource}: " if report.dataset else "")
    click.echo(f"{of}{report.days:,} days, {report.events:,} events, {report.bytes:,} bytes")
    say("proven: whole and unaltered" if report.proven else "not proven")


def _read_manifest(source: str, key: str | None) -> tuple[ManifestDay, ...]:
    from midstream.exhaust.manifest import read_manifest

    if source.startswith(("http://", "https://")):
        text = _fetch(source, key)
    else:
        try:
            with Path(source).open("rb") as file:
                text = file.read(_MAX_MANIFEST_BYTES + 1)
        except OSError as error:
            raise click.UsageError(f"--manifest {source}: {error.strerror}") from None
    if len(text) > _MAX_MANIFEST_BYTES:
        raise Refused(f"the manifest has more than {_MAX_MANIFEST_BYTES} bytes")
    try:
        return read_manifest(text)
    except ValueError as error:
        raise Refused(printable(f"the manifest cannot be used: {error}")) from None


def _fetch(url: str, key: str | None) -> bytes:
    """Get a manifest; redirects are not followed, as the key is for this address alone."""
    import httpx

    if not key or not key.isascii() or not key.isprintable():
        raise click.UsageError("a URL wants a licence key: --key, or MIDSTREAM_LICENCE_KEY")
    end = time.monotonic() + _TIMEOUT_S
    try:
        with httpx.stream("GET", url, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT_S) as reply:
            text = bytearray()
            for chunk in reply.iter_bytes():
                text += chunk
                if len(text) > _MAX_MANIFEST_BYTES:
                    break
                if time.monotonic() > end:
                    raise Refused(f"the manifest has not come within {_TIMEOUT_S:.0f} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Refused(f"the manifest cannot be fetched: {error or type(error).__name__}") from None
    if reply.status_code != httpx.codes.OK:
        raise Refused(printable(f"the manifest is refused with {reply.status_code}{_reason(bytes(text))}"))
    return bytes(text)


def _reason(reply: bytes) -> str:
    """Return why a request was refused, as far as the reply says."""
    try:
        params = json.loads(reply)["params"]
        return f": {params['err']}: {params['errmsg']}"[:300]
    except (ValueError, LookupError, TypeError):
        return ""
