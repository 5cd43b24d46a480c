"""Configurations from TOML files, keys strict."""

import tomllib
from pathlib import Path
from typing import Any

from configs.errors import ConfigError


def read_toml(path: Path) -> dict[str, Any]:
    """The settings of a TOML file; the tables [classes] and [split] map names to lists.

    Raises:
        ConfigError: the file is missing or is no TOML; which keys are known is for the configuration to say.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read ({error.strerror}); check --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the configuration {path} is no valid TOML ({error}); mend it") from error
