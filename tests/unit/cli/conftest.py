from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from midstream.cli import cli
from midstream.settings import get_settings
from tests.support.ports import port_settings

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and ports that nobody listens on."""
    folder = tmp_path / "home"
    for name in ("KAFKA", "CLICKHOUSE", "REGISTRY", "SCHEMAS"):
        monkeypatch.delenv(f"MIDSTREAM_{name}", raising=False)
    monkeypatch.setenv("MIDSTREAM_HOME", str(folder))
    for name, port in port_settings().items():
        monkeypatch.setenv(f"MIDSTREAM_{name.upper()}", str(port))
    return folder


@pytest.fixture
def run(home: Path) -> Iterator[Run]:
    """Run ``midstream`` with the arguments."""

    def run_command(*arguments: str, stdin: bytes | str | None = None) -> Result:
        get_settings.cache_clear()
        structlog.reset_defaults()  # a command is a process of its own, in which no log was set up
        return CliRunner().invoke(cli, arguments, input=stdin)

    yield run_command
    get_settings.cache_clear()
