"""Values on the command line that typer alone would take, and nothing could use."""

from math import isfinite
from pathlib import Path
from typing import Any

import typer

DATA_DIR_METAVAR = "<path>"


def filled(given: Any) -> Any:
    """A callback for options and arguments of text: refuses an empty one, which a shell makes of an unset variable."""
    for text in given if isinstance(given, list) else [given]:
        if text is not None and not text.strip():
            raise typer.BadParameter("it is empty")
    return given


def finite(given: float | None) -> float | None:
    if given is not None and not isfinite(given):
        raise typer.BadParameter(f"{given} is not a finite number")
    return given


def folder(text: str) -> Path:
    # An empty path would be the working directory.
    if not text.strip():
        raise typer.BadParameter("it is empty")
    return Path(text)
