"""Which models a command is about: those of the settings, of a file, or one named by its checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmq.cli_values import folder
from vlmq.errors import ExplainedError

if TYPE_CHECKING:
    from vlmq.config import Settings
    from vlmq.served_model import ServedModel

ModelsFile = Annotated[
    Path | None,
    typer.Option(parser=folder, metavar="<path>", help="A .toml or .json file with the models, for VLMQ_MODELS."),
]


def with_models(settings: "Settings", file: Path | None) -> "Settings":
    """The settings with the models of a file, if one is named."""
    from vlmq.models_file import read_models
    from vlmq.served_model import ServedModel

    return settings if file is None else settings.model_copy(update={"models": read_models(file, ServedModel)})


def served(settings: "Settings", name: str) -> "tuple[str, ServedModel]":
    """A model of the settings by its name, or one made from a folder or a repository."""
    from vlmq.served_model import ServedModel

    if name in settings.models:
        return name, settings.models[name]
    directory = Path(name).expanduser()
    if directory.is_dir():
        return directory.resolve().name, ServedModel(checkpoint=str(directory.resolve()))
    owner, _, repository = name.partition("/")
    if owner and repository and "/" not in repository and owner not in (".", "..", "~"):
        return repository, ServedModel(checkpoint=name)
    known = ", ".join(sorted(settings.models))
    raise ExplainedError(
        f"{name!r} is neither a model of the settings ({known}), nor a folder, nor an owner/name on the hub"
    )
