from pathlib import Path

import pytest

from midstream.codes import REASONS, Reason
from midstream.reference import PAGES
from midstream.settings import SUBJECTS, Settings, SettingsError, load_settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_reference_pages_are_what_the_code_declares(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), "run `make reference`"


def test_every_setting_is_described() -> None:
    assert [name for name, info in Settings.model_fields.items() if not info.description] == []


def test_every_setting_has_one_subject() -> None:
    names = [name for subject in SUBJECTS for name in subject.model_fields]
    assert sorted(names) == sorted(Settings.model_fields)


def test_every_reason_code_is_documented() -> None:
    assert set(REASONS) == set(Reason)


def test_a_wrong_setting_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_PORT", "99999")
    monkeypatch.setenv("MIDSTREAM_SEAL_ROWS", "many")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "MIDSTREAM_PORT" in str(caught.value)
    assert "99999" in str(caught.value)
    assert "MIDSTREAM_SEAL_ROWS" in str(caught.value)


def test_settings_do_not_change_after_they_are_read() -> None:
    with pytest.raises(Exception, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


def test_commas_separate_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_CORS_ORIGINS", "https://a.example, https://b.example")
    assert load_settings().cors_origins == ("https://a.example", "https://b.example")
