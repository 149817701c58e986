"""Where settings come from beside the environment: `lumbar.toml`; and what is misspelt there."""

import os
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, InitSettingsSource

from lumbar.errors import WrongSetting


class TomlFile(InitSettingsSource):
    """`lumbar.toml`. A table that the environment sets too is replaced as a whole, not merged."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        super().__init__(settings, _settings_in(Path("lumbar.toml")))

    def __call__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in super().__call__().items()
            if name not in self.current_state
        }


def _settings_in(file: Path) -> dict[str, Any]:
    """The file's settings; none where there is no file.

    Raises:
        WrongSetting: it cannot be read, or is not TOML in UTF-8; a byte order mark does no harm.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        if file.is_symlink():
            raise WrongSetting(f"{file} is a link to a file that does not exist") from error
        return {}
    except OSError as error:
        raise WrongSetting(f"{file} cannot be read: {error.strerror}") from error
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise WrongSetting(f"{file} is not UTF-8 (line {line}); save it as UTF-8") from error
    except ValueError as error:
        utf_16 = "; it looks like UTF-16: save it as UTF-8" if b"\0" in content else ""
        raise WrongSetting(f"{file} is not TOML: {error}{utf_16}") from error


def reject_misspelt(known: Iterable[str]) -> None:
    """Rejects variables that look like a misspelt setting, which would be ignored silently.

    Raises:
        WrongSetting: there is such a variable.
    """
    names = {f"LUMBAR_{name.upper()}" for name in known}
    unknown = [name for name in os.environ if name.startswith("LUMBAR_") and name not in names]
    for variable in sorted(unknown):
        if similar := get_close_matches(variable, names, n=1, cutoff=0.85):
            raise WrongSetting(f"{variable} is not a setting; did you mean {similar[0]}?")
