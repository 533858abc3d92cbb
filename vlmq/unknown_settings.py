"""Variables that look like settings and are none: most likely misspelt, and without effect."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from dotenv import dotenv_values

from vlmq.config import Settings

PREFIX = "VLMQ_"
# Of the commands that use a service, and of docker-compose.yml.
_OTHERS = frozenset({"VLMQ_URL", "VLMQ_API_KEY", "VLMQ_MODEL"})


def unknown_settings(environment: Mapping[str, str] = os.environ, file: Path = Path(".env")) -> dict[str, str | None]:
    """Their names, and for each the setting that is meant, if one is like it.

    What stands behind `__` is not looked at: an unknown name there stops the start.
    """
    # DATABASE_URL, REDIS_URL and HF_TOKEN are read with the prefix, too.
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = {name.upper() for name in (*environment, *dotenv_values(file)) if name.upper().startswith(PREFIX)}
    unknown = sorted(name for name in given if name.partition("__")[0] not in settings | _OTHERS)
    return {name: next(iter(get_close_matches(name, settings, n=1)), None) for name in unknown}
