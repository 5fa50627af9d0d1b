"""The file of sources: what it takes, where a fault is, and that no secret is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstream.dimensions import DimensionType
from midstream.settings import Settings
from midstream.sources.config import HttpConfig, SqlConfig, read_config
from midstream.sources.errors import SourceError
from midstream.sources.opening import open_sources
from midstream.sources.secrets import Hider

HTTP = '[user]\nkind = "http"\nurl = "http://h/x"\n'
SQL = '[user]\nkind = "sql"\nurl = "sqlite:///x"\nquery = "SELECT 1 AS id"\n'
FILE = '[user]\nkind = "file"\npath = "x"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sources.toml"


def refused(file: Path, text: str) -> str:
    file.write_text(text)
    with pytest.raises(SourceError) as raised:
        read_config(file)
    assert raised.value.code == "SOURCE_CONFIG"
    assert str(file) in str(raised.value)
    return str(raised.value).replace(f"{file}: ", "")


def test_no_file_is_no_sources(tmp_path: Path) -> None:
    assert open_sources(Settings(home=tmp_path, dimension_sources="")) == {}


def test_every_type_can_have_one(file: Path) -> None:
    file.write_text("".join(FILE.replace("user", type_) for type_ in DimensionType))
    opened = open_sources(Settings(home=file.parent, dimension_sources=str(file)))
    assert set(opened) == set(DimensionType)
    assert all(source.type == type_ for type_, source in opened.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user", "not TOML"),
        ('[users]\nkind = "file"', "users: no type of objects; they are user, organisation"),
        ("user = 1", "user: not a table"),
        ("[user]", "user: Unable to extract tag using discriminator 'kind'"),
        ('[user]\nkind = "ftp"', "user: Input tag 'ftp' found using 'kind' does not match any of the expected tags"),
        ('[user]\nkind = "file"', "user.path: Field required"),
        (FILE + "speed = 1", "user.speed: Extra inputs are not permitted"),
        (FILE + "read_timeout_ms = 0", "user.read_timeout_ms: Input should be greater than or equal to 1"),
        (FILE + 'read_timeout_ms = "5"', "user.read_timeout_ms: Input should be a valid integer"),
        ('[user]\nkind = "http"\nurl = "ftp://h"', "user: url: an address with http"),
        ('[user]\nkind = "http"\nurl = "http://h:999999/"', "user: url: an address with http"),
        ('[user]\nkind = "http"\nurl = "http:///x"', "user: url: an address with http"),
        (HTTP + 'headers = {"A B" = "x"}', "user: headers: 'A B' is no name of a header"),
        (HTTP + 'rows = "users"', "user.rows: String should match pattern"),
        (HTTP + 'paging = {style = "cursor", pointer = "/x"}', "user.paging.parameter: Field required"),
        (HTTP + 'paging = {style = "all"}', "user.paging: Input tag 'all'"),
        (HTTP + 'since_parameter = "s"', "user: since_parameter: needs `version_field` or `updated_at_field`"),
        (HTTP + 'version_field = "a"\nupdated_at_field = "b"', "user: version_field and updated_at_field: one of them"),
        (HTTP + 'format = "jsonl"\nrows = "/a"', "user: format: a body of JSON lines has neither"),
        (HTTP + 'bearer_token = "a\\u00e9"', "user: bearer_token: characters that a header cannot hold"),
        (HTTP + 'headers = {A = "x\\ny"}', "user: headers.A: characters that a header cannot hold"),
        (HTTP + 'bearer_token = "${NOT_SET_HERE}"', "user.bearer_token: the variable NOT_SET_HERE is not set"),
        (HTTP + 'bearer_token_file = "none"', "user.bearer_token_file: the file cannot be read: No such file"),
        (HTTP + 'bearer_token_file = "empty"', "user.bearer_token_file: the file is empty"),
        (HTTP + 'url_file = "empty"', "user.url_file: given beside `url`"),
        (SQL + 'id_type = "float"', "user.id_type: Input should be 'text', 'integer' or 'uuid'"),
        (SQL + "json_columns = [1]", "user.json_columns.0: Input should be a valid string"),
    ],
)
def test_faults_are_named_with_their_place(file: Path, text: str, message: str) -> None:
    (file.parent / "empty").write_text(" \n")
    assert refused(file, text).startswith(message)


def test_all_faults_are_named_at_once(file: Path) -> None:
    found = refused(file, FILE + "a = 1\n" + FILE.replace("user", "device") + "b = 1")
    assert [line.partition(": ")[0] for line in found.splitlines()] == ["user.a", "device.b"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.toml: the file cannot be read: No such file"):
        open_sources(Settings(home=tmp_path, dimension_sources=str(tmp_path / "none.toml")))


def test_secrets_come_from_the_environment_and_from_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "p@ss/word")
    monkeypatch.setenv("DB_URL", "postgresql://u:hunter2@h/d")
    (file.parent / "token").write_text("t0ken\n")
    file.write_text(
        '[user]\nkind = "sql"\nurl = "postgresql://u:${DB_PASSWORD}@h/d"\nquery = "SELECT 1"\n'
        '[device]\nkind = "sql"\nurl = "${DB_URL}"\nquery = "SELECT 1"\npassword_file = "token"\n'
        '[content]\nkind = "http"\nurl = "https://h/x"\nbearer_token_file = "token"\n'
    )
    found = read_config(file)
    user, device, content = (found[DimensionType(name)][0] for name in ("user", "device", "content"))
    assert isinstance(user, SqlConfig)
    assert isinstance(device, SqlConfig)
    assert isinstance(content, HttpConfig)
    assert user.url.get_secret_value() == "postgresql://u:p%40ss%2Fword@h/d"
    assert device.url.get_secret_value() == "postgresql://u:hunter2@h/d"
    assert device.password is not None
    assert device.password.get_secret_value() == "t0ken"
    assert content.bearer_token is not None
    assert content.bearer_token.get_secret_value() == "t0ken"
    for secret in ("p@ss", "p%40ss", "hunter2", "t0ken"):
        assert secret not in repr(found)
    assert found[DimensionType.USER][1]("no user u with p@ss/word, p%40ss%2Fword") == "no user u with ***, ***"
    assert found[DimensionType.DEVICE][1]("hunter2 and t0ken\nagain") == "*** and *** again"


@pytest.mark.parametrize("more", ["bearer_token = 5", 'bearer_token = "s3cret"\nx = 1', 'headers = {A = ["s3cret"]}'])
def test_faults_show_no_secret(file: Path, more: str) -> None:
    assert "s3cret" not in refused(file, HTTP + more)


def test_what_is_hidden() -> None:
    hide = Hider(["abc", "abcdef", "a", ""])
    assert hide("abcdef abc a") == "*** *** a"
    assert len(hide("x" * 1000)) == 300
