"""Settings from files: ``MIDSTREAM_X_FILE`` names a file that holds the value of ``MIDSTREAM_X``.

Container platforms give secrets as files, which no child process, crash report or ``docker inspect`` shows. What stands
in such a file is never part of a message.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

PREFIX = "MIDSTREAM_"

_SUFFIX = "_FILE"
_MAX_BYTES = 64 * 1024
_NOT_SETTINGS = ("MIDSTREAM_LICENCE_KEY",)  # of a command's option
_OUR_OWN = "MIDSTREAM_RUN_"  # what `make run` tells its supervisor


class SettingFileError(Exception):
    """Files of settings cannot be used: one line each, which names the variable."""


class FileSource(PydanticBaseSettingsSource):
    """Reads each setting whose variable with ``_FILE`` behind it is there; line ends at the file's end are left out."""

    def __init__(self, settings_cls: type[BaseSettings], environment: Mapping[str, str] | None = None) -> None:
        super().__init__(settings_cls)
        self._environment = _upper(os.environ if environment is None else environment)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the text of a setting's file, None when no file is named.

        Raises:
            SettingFileError: the file cannot be used, or the setting is given twice.
        """
        variable = PREFIX + field_name.upper()
        path = self._environment.get(variable + _SUFFIX, "")
        if not path:
            return None, field_name, False
        if self._environment.get(variable):
            raise SettingFileError(f"{variable}: {variable}{_SUFFIX} is set too; set one of both")
        return _read(variable + _SUFFIX, Path(path)), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the settings that files give.

        Raises:
            SettingFileError: with one line a wrong file.
        """
        found: dict[str, Any] = {}
        wrong: list[str] = []
        for name, field in self.settings_cls.model_fields.items():
            try:
                value, _, _ = self.get_field_value(field, name)
            except SettingFileError as error:
                wrong.append(str(error))
                continue
            if value is not None:
                found[name] = value
        if wrong:
            raise SettingFileError("\n".join(wrong))
        return found


def unknown_variables(names: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return each ``MIDSTREAM_*`` variable that is no setting, with the setting it may be meant for or "".

    Args:
        names: of the settings, as the class has them.
        environment: the variables of a process.
    """
    known = {PREFIX + name.upper() for name in names}
    known |= {name + _SUFFIX for name in known}
    found: dict[str, str] = {}
    for name in _upper(environment):
        if (
            name.startswith(PREFIX)
            and name not in known
            and name not in _NOT_SETTINGS
            and not name.startswith(_OUR_OWN)
        ):
            meant = difflib.get_close_matches(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], 1)
            found[name] = PREFIX + meant[0] if meant else ""
    return found


def _upper(environment: Mapping[str, str]) -> dict[str, str]:
    return {name.upper(): value for name, value in environment.items()}  # case says nothing, as for other settings


def _read(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        text = raw.decode().rstrip("\r\n")
    except OSError as error:
        raise SettingFileError(f"{variable}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingFileError(f"{variable}: {path} is no text in UTF-8") from None
    if len(raw) > _MAX_BYTES:
        raise SettingFileError(f"{variable}: {path} is larger than {_MAX_BYTES} bytes")
    if not text:  # an empty secret would fall back to a default, such as a registry of one's own
        raise SettingFileError(f"{variable}: {path} is empty")
    if "\x00" in text or "\n" in text:
        raise SettingFileError(f"{variable}: {path} holds more than one line")
    return text
