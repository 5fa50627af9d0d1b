from pathlib import Path

import pytest

from midstream.registry.errors import RegistryUnavailable
from midstream.registry.keyfile import derive_key, ensure_key, key_path
from midstream.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_a_derived_key_depends_on_file_and_label_and_is_not_the_files(settings: Settings, tmp_path: Path) -> None:
    ensure_key(settings)
    other = Settings(home=tmp_path / "other")
    ensure_key(other)
    keys = [derive_key(settings, b"a"), derive_key(settings, b"b"), derive_key(other, b"a")]
    assert derive_key(settings, b"a") == keys[0]
    assert len(set(keys)) == 3
    assert {len(key) for key in keys} == {32}


def test_a_derived_key_stays_the_same_for_ever(settings: Settings) -> None:
    key_path(settings).write_bytes(b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n")
    # HKDF-SHA256 of 0123456789abcdef0123456789abcdef without salt, info "label"
    assert derive_key(settings, b"label").hex() == "2ff22ab9733a4d87e90d95c4054b84646b26a40b6792566004fae06a0ee18e48"


@pytest.mark.parametrize("content", [None, b"", b"short", b"=" * 44, b"\xff" * 44])
def test_without_a_usable_file_it_says_which(settings: Settings, content: bytes | None) -> None:
    if content is not None:
        key_path(settings).write_bytes(content)
    with pytest.raises(RegistryUnavailable, match=r"registry\.key"):
        derive_key(settings, b"label")
