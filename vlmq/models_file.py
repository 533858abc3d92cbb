"""The file that describes the served models: TOML or JSON, a table for each model under its name."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vlmq.errors import ExplainedError

Model = TypeVar("Model", bound=BaseModel)
NAMES = "letters, digits and . _ - / without .. can"


class ModelsFileError(ExplainedError):
    """The file cannot be used; each line names it, and where they are known the model and the field."""


def read_models(path: Path, kind: type[Model]) -> dict[str, Model]:
    """The models of the file, by their names.

    Raises:
        ModelsFileError: it cannot be used.
    """
    models: dict[str, Model] = {}
    problems = []
    for name, values in _read_tables(path).items():
        try:
            models[name] = kind.model_validate(values)
        except ValidationError as error:
            problems += [f"{path}: {_explain(name, item, kind)}" for item in error.errors()]
        if not is_model_name(name):
            problems.append(f"{path}: it cannot name a model {name!r}; {NAMES}")
    if problems:
        raise ModelsFileError("\n".join(problems))
    return models


def is_model_name(name: str) -> bool:
    return re.fullmatch(r"(?!.*\.\.)[a-zA-Z0-9][\w./-]*", name, re.ASCII) is not None


def _explain(model: str, problem: ErrorDetails, kind: type[BaseModel]) -> str:
    field = "".join(f", {part}" for part in problem["loc"])
    words = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        words = f"there is no such setting; a model has {', '.join(kind.model_fields)}"
    return f"the model {model}{field}: {words}"


def _read_tables(path: Path) -> dict[str, dict[str, Any]]:
    if path.suffix not in (".toml", ".json"):
        raise ModelsFileError(f"{path}: a file of models is named .toml or .json, for what it holds")
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text, object_pairs_hook=_once)
    except OSError as error:
        raise ModelsFileError(f"{path}: the file of models cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ModelsFileError(f"{path}: the file of models is not UTF-8") from None
    except (ValueError, RecursionError) as error:  # both libraries' errors say where, and are ValueErrors
        raise ModelsFileError(f"{path}: not {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(table, dict) for table in content.values()):
        raise ModelsFileError(f"{path}: it takes a table for each model, under its name")
    if not content:
        raise ModelsFileError(f"{path}: it names no model")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """TOML refuses a name that comes twice; JSON would take the last one."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name comes twice in one object")
    return table
