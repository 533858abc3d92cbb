"""Values on the command line that typer alone would take, and nothing could use."""

import json
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


def named(given: list[str]) -> dict[str, Any]:
    """`name=value` pairs; a value that is no JSON is text.

    Raises:
        typer.BadParameter: there is no name, or it comes twice.
    """
    values: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{pair} is no NAME=VALUE")
        if name in values:
            raise typer.BadParameter(f"{name} is there twice")
        try:
            values[name] = json.loads(value)
        except (ValueError, RecursionError):
            values[name] = value
    return values


def folder(text: str) -> Path:
    # An empty path would be the working directory.
    if not text.strip():
        raise typer.BadParameter("it is empty")
    return Path(text)
