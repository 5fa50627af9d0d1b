"""Settings from files, variables that are no settings, and passwords that no message shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from midstream import logs
from midstream.clickhouse.client import ClickHouseError, open_client, parse_dsn
from midstream.registry.credentials import Credentials
from midstream.registry.errors import RegistryError
from midstream.registry.migrate import migrate
from midstream.secret_files import unknown_variables
from midstream.settings import Settings, SettingsError, load_settings
from tests.support.ports import free_ports

_CANARY = "c4nary-7f31"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MIDSTREAM_CLICKHOUSE", "MIDSTREAM_REGISTRY", "MIDSTREAM_KAFKA", "MIDSTREAM_PORT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_file_gives_a_setting_without_the_lines_end(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "clickhouse"
    file.write_text(f"http://writer: {_CANARY}@ch:8123/midstream{end}", newline="")
    monkeypatch.setenv("MIDSTREAM_CLICKHOUSE_FILE", str(file))
    assert load_settings().clickhouse == f"http://writer: {_CANARY}@ch:8123/midstream"


def test_numbers_and_lists_come_from_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"port": "8700\n", "cors_origins": "https://a.example,https://b.example\n"}.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setenv(f"MIDSTREAM_{name.upper()}_FILE", str(tmp_path / name))
    settings = load_settings()
    assert settings.port == 8700
    assert settings.cors_origins == ("https://a.example", "https://b.example")


def test_every_setting_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        assert not name.endswith("_file"), "MIDSTREAM_X_FILE would mean two things"
        monkeypatch.setenv(f"MIDSTREAM_{name.upper()}_FILE", str(tmp_path / "nowhere"))
        monkeypatch.delenv(f"MIDSTREAM_{name.upper()}", raising=False)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"MIDSTREAM_{name.upper()}_FILE" for name in Settings.model_fields
    ]
    assert all("No such file" in line for line in lines)


def test_a_setting_given_twice_is_refused_but_an_empty_one_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kafka").write_text("broker:9092")
    monkeypatch.setenv("MIDSTREAM_KAFKA_FILE", str(tmp_path / "kafka"))
    monkeypatch.setenv("MIDSTREAM_KAFKA", "")
    assert load_settings().kafka == "broker:9092"
    monkeypatch.setenv("MIDSTREAM_KAFKA", "other:9092")
    with pytest.raises(SettingsError, match=r"MIDSTREAM_KAFKA: MIDSTREAM_KAFKA_FILE is set too"):
        load_settings()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (_CANARY.encode() + b"\nmore", "more than one line"),
        (_CANARY.encode() + b"\xff", "no text in UTF-8"),
        (_CANARY.encode() * 10_000, "larger than"),
    ],
)
def test_a_file_that_holds_no_setting_is_named_without_what_it_holds(
    content: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv("MIDSTREAM_REGISTRY_FILE", str(tmp_path / "secret"))
    with pytest.raises(SettingsError, match=said) as caught:
        load_settings()
    assert str(caught.value).startswith("MIDSTREAM_REGISTRY_FILE: ")
    assert _CANARY not in str(caught.value)


def test_a_wrong_value_from_a_file_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "port").write_text(_CANARY)
    monkeypatch.setenv("MIDSTREAM_PORT_FILE", str(tmp_path / "port"))
    with pytest.raises(SettingsError, match="MIDSTREAM_PORT: ") as caught:
        load_settings()
    assert _CANARY not in str(caught.value)


def test_a_variable_that_is_no_setting_is_found_and_what_it_may_mean() -> None:
    environment = {
        "MIDSTREAM_CLICKHOSE": "x",
        "MIDSTREAM_CLICKHOUSE_FIL": "x",
        "MIDSTREAM_ZZZZZZ": "x",
        "MIDSTREAM_PORT": "1",
        "midstream_port_file": "x",
        "MIDSTREAM_RUN_HOME": "x",
        "MIDSTREAM_LICENCE_KEY": "x",
        "PATH": "x",
    }
    assert unknown_variables(Settings.model_fields, environment) == {
        "MIDSTREAM_CLICKHOSE": "MIDSTREAM_CLICKHOUSE",
        "MIDSTREAM_CLICKHOUSE_FIL": "MIDSTREAM_CLICKHOUSE_FILE",
        "MIDSTREAM_ZZZZZZ": "",
    }


def test_a_variable_that_is_no_setting_is_warned_of_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_LOG_LEVL", "debug")
    monkeypatch.setattr(logs.structlog, "configure", lambda **_: None)
    monkeypatch.setattr(logs.logging.getLogger(), "handlers", logs.logging.getLogger().handlers)
    before, level = logs.logging.getLogger().handlers[:], logs.logging.getLogger().level
    captured = structlog.testing.CapturingLogger()
    monkeypatch.setattr(logs, "get_logger", lambda _: captured)
    try:
        logs.configure_logs(Settings(), "test")
    finally:
        logs.logging.getLogger().handlers[:] = before
        logs.logging.getLogger().setLevel(level)
    said = [call.kwargs for call in captured.calls if call.kwargs["variable"] == "MIDSTREAM_LOG_LEVL"]
    assert said == [{"variable": "MIDSTREAM_LOG_LEVL", "meant": "MIDSTREAM_LOG_LEVEL"}]


def test_no_text_of_the_settings_shows_a_password() -> None:
    settings = Settings(clickhouse=f"http://u:{_CANARY}@h/d", registry=f"postgresql://u:{_CANARY}@h/d")
    assert _CANARY not in repr(settings)
    assert _CANARY not in str(settings)
    assert _CANARY not in repr(parse_dsn(settings.clickhouse_dsn))


@pytest.mark.parametrize(
    "dsn",
    [
        f"http://user:{_CANARY}/x@host/midstream",
        f"http://user:{_CANARY}#x@host/midstream",
        f"http://user:{_CANARY}℀@host/midstream",
        f"http://user:[{_CANARY}@host/midstream",
        f"native://user:{_CANARY}@host/midstream",
        f"http://user:{_CANARY}@:1/midstream",
    ],
)
def test_a_dsn_that_cannot_be_read_is_refused_without_its_password(dsn: str) -> None:
    with pytest.raises(SettingsError, match="MIDSTREAM_CLICKHOUSE: ") as caught:
        parse_dsn(dsn)
    assert _CANARY not in "".join(_texts(caught.value))


def test_clickhouse_out_of_reach_shows_no_password() -> None:
    settings = Settings(clickhouse=f"http://user:{_CANARY}@127.0.0.1:{free_ports(1)[0]}/midstream")
    with pytest.raises(ClickHouseError) as caught:
        open_client(settings, timeout_ms=1_000).rows("SELECT 1")
    assert _CANARY not in "".join(_texts(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://user:{_CANARY}@127.0.0.1:{{port}}/midstream",
        f"postgresql+nodriver://user:{_CANARY}@127.0.0.1/midstream",
        f"mysql://user:{_CANARY}@127.0.0.1/midstream",
        f"postgresql://user:{_CANARY}@127.0.0.1:port/midstream",
        f"postgresql+psycopg://user:{_CANARY}@127.0.0.1:{{port}}/midstream?nothing=1",
    ],
)
def test_a_registry_out_of_reach_shows_no_password(url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, registry=url.format(port=free_ports(1)[0]))
    for call in (lambda: migrate(settings, wait_ms=1_000), lambda: Credentials(settings, wait_ms=1_000).list_all()):
        with pytest.raises(RegistryError) as caught:
            call()
        assert _CANARY not in "".join(_texts(caught.value))


def _texts(error: BaseException | None) -> list[str]:
    """Return what an error and those behind it say, however a log writes them."""
    found: list[str] = []
    while error is not None:
        found += [str(error), repr(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found
