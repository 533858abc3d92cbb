"""The commands about served models: what they are and how they are, and fetching their checkpoints beforehand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmq.cli_jobs import DEFAULT_URL, ApiKey, Json, Url
from vlmq.cli_served import ModelsFile, served, with_models
from vlmq.cli_values import filled
from vlmq.errors import ExplainedError

if TYPE_CHECKING:
    from vlmq.config import Settings

commands = typer.Typer(help="Look at the served models, and fetch their checkpoints.", no_args_is_help=True)


@commands.command("list")
def list_models(
    json: Json = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """List the models that a running service serves, and the state of each."""
    from vlmq.cli_tables import print_models
    from vlmq.client import Client

    with Client(url, api_key) as client:
        print_models(client.models(), as_json=json)


@commands.command("pull")
def pull(
    name: Annotated[
        str,
        typer.Argument(
            callback=filled, metavar="NAME", help="A model of the settings, or a repository on the hub (owner/name)."
        ),
    ],
    revision: Annotated[
        str | None, typer.Option(callback=filled, help="A branch, tag or commit of the repository.")
    ] = None,
    models_file: ModelsFile = None,
) -> None:
    """Download a model's checkpoint, and its adapter, before it is served.

    Files that are there already are not downloaded again, so a pull that broke off can be given anew.
    """
    from vlmq.config import get_settings

    settings = with_models(get_settings(), models_file)
    _, model = served(settings, name)
    if revision is not None and model.revision not in (None, revision):
        raise ExplainedError(f"the settings pin {name} to the revision {model.revision}; leave out --revision")
    _pull(settings, model.checkpoint, revision or model.revision)
    if model.adapter is not None:
        _pull(settings, model.adapter, model.adapter_revision)


def _pull(settings: "Settings", name: str, revision: str | None) -> None:
    folder = Path(name).expanduser()
    if folder.is_dir():
        print(f"{name} is a folder on this machine; there is nothing to download")
        return
    if folder.is_absolute() or name.startswith((".", "~")):
        raise ExplainedError(f"{name} is not a directory on this machine")
    try:
        from vlmq.hub import HubError, Repository
    except ImportError:
        raise ExplainedError("downloads need huggingface_hub: install requirements/worker.txt") from None
    from vlmq.cli_progress import DownloadBar

    token = None if settings.hf_token is None else settings.hf_token.get_secret_value()
    try:
        with DownloadBar(name) as bar:
            path = Repository(name, revision, token).download(on_bytes=bar.show)
    except HubError as error:
        raise ExplainedError(f"{name} {error}") from None
    if not any(path.glob("*.safetensors")):
        raise ExplainedError(f"{name} has no weights in safetensors files; nothing else is loaded")
    how = f"downloaded, {bar.total:,} bytes" if bar.total else "there already"
    print(f"{name} is {how}: revision {path.name}")
