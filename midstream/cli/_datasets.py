"""What ``dataset`` and ``licence`` share: pairs of a dataset and a resource, a declaration from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import click

from midstream.cli._common import Refused

if TYPE_CHECKING:
    from midstream.exhaust.dataset import Dataset

_MAX_FILE_BYTES = 64 * 1024

DATASETS = click.option(
    "--dataset", "datasets", multiple=True, required=True, help="A dataset, such as D001; may be given again."
)
RESOURCES = click.option(
    "--resource", "resources", multiple=True, required=True, help="Its resource, such as a hash; one a dataset."
)
LIST_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")


def paired(datasets: Sequence[str], resources: Sequence[str]) -> list[tuple[str, str]]:
    """Return each dataset with the resource that was given at its place; unequal numbers are wrong usage."""
    if len(datasets) != len(resources):
        raise click.UsageError(f"--dataset was given {len(datasets)} times, --resource {len(resources)} times")
    return list(zip(datasets, resources, strict=True))


def read_file(file: BinaryIO) -> Dataset:
    """Return the dataset that a file declares; what cannot be one ends the command."""
    import msgspec

    text = file.read(_MAX_FILE_BYTES + 1)
    if len(text) > _MAX_FILE_BYTES:
        raise Refused(f"a declaration takes {_MAX_FILE_BYTES} bytes at the most")
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"the declaration is no JSON: {error}") from None
    return declared(found)


def declared(declaration: object) -> Dataset:
    """Return the dataset of a declaration; what cannot be one ends the command."""
    from midstream.exhaust.dataset import DatasetError, read_declaration

    try:
        return read_declaration(declaration)
    except DatasetError as error:
        raise Refused(str(error)) from None
