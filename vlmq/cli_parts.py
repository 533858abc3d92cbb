"""The commands that run the service or a part of it, and look after what it stands on."""

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, cast

import typer

from vlmq import cli_database
from vlmq.cli_served import ModelsFile, served, with_models
from vlmq.cli_values import DATA_DIR_METAVAR, filled, folder
from vlmq.errors import ExplainedError

if TYPE_CHECKING:
    from vlmq.config import Settings

DataDirectory = Annotated[
    Path | None,
    typer.Option(parser=folder, metavar=DATA_DIR_METAVAR, help="The data directory of `vlmq serve`."),
]


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(api)
    app.command()(worker)
    app.add_typer(cli_database.commands, name="db")
    app.command()(doctor)
    app.command("webhook-secret")(webhook_secret)
    app.command()(healthcheck)


def serve(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            callback=filled,
            help="A model of the settings, a checkpoint's folder, or a repository on the hub. Repeatable.",
        ),
    ] = None,
    models_file: ModelsFile = None,
    host: Annotated[
        str | None, typer.Option(callback=filled, help="Address to listen on.  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.  [default: 8000]")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            parser=folder,
            metavar=DATA_DIR_METAVAR,
            help="Where jobs, files, Redis and logs are kept.  [default: .vlmq]",
        ),
    ] = None,
    allow_private_urls: Annotated[
        bool,
        typer.Option("--allow-private-urls", help="Development only: media and webhooks may be on this machine."),
    ] = False,
) -> None:
    """Run the whole service on this machine.

    Redis, the database, the API, a worker for each model, and one for webhooks; Ctrl-C stops them all.
    """
    from rich.console import Console

    from vlmq.config import get_settings
    from vlmq.embedded import serve as run_stack
    from vlmq.lasting_output import LastingOutput

    settings = with_models(get_settings(), models_file)
    given = {"host": host, "port": port, "data_dir": data_dir, "dev_allow_private_urls": allow_private_urls or None}
    changes: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if model:
        changes["models"] = dict(served(settings, name) for name in model)
    # It must not fail while it stops the parts.
    console = Console(file=cast(IO[str], LastingOutput(sys.stdout)))
    raise typer.Exit(run_stack(settings.model_copy(update=changes), console))


def api() -> None:
    """Run the API alone.

    It uses DATABASE_URL and REDIS_URL.
    """
    from api.server import serve as run_api
    from vlmq.config import get_settings
    from vlmq.logs import configure_logging

    settings = get_settings()
    configure_logging(settings.log_level)
    run_api(settings)


def worker(
    model: Annotated[str | None, typer.Option(help="The served model to hold, one of VLMQ_MODELS.")] = None,
    light: Annotated[bool, typer.Option("--light", help="Hold no model: deliver webhooks and reconcile.")] = False,
) -> None:
    """Run one worker alone.

    It uses DATABASE_URL and REDIS_URL.
    """
    from vlmq.config import get_settings
    from vlmq.logs import configure_logging

    if (model is None) == (not light):
        raise ExplainedError("a worker takes either --model NAME or --light")
    settings = get_settings()
    configure_logging(settings.log_level)
    if model is None:
        from tasks.light_worker import run as run_light

        raise typer.Exit(run_light(settings))
    if model not in settings.models:
        raise ExplainedError(f"VLMQ_MODELS has no model {model!r}; it has {', '.join(sorted(settings.models))}")
    from tasks.gpu_worker import run as run_gpu

    raise typer.Exit(run_gpu(settings, model))


def doctor(
    model: Annotated[
        str | None,
        typer.Option(callback=filled, help="Load this model instead, and say what it takes; as in `vlmq serve`."),
    ] = None,
    models_file: ModelsFile = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDirectory = None,
) -> None:
    """Look for what is missing, and say what to do."""
    from vlmq.cli_tables import print_findings
    from vlmq.doctor import examine
    from vlmq.doctor_model import examine_model

    settings = with_models(_settings(data_dir), models_file)
    findings = examine(settings) if model is None else list(examine_model(settings, *served(settings, model)))
    print_findings(findings, as_json=json)
    raise typer.Exit(1 if any(finding.level == "fail" for finding in findings) else 0)


def webhook_secret(
    tenant: Annotated[str, typer.Option(callback=filled, help="Whose secret: a tenant of VLMQ_API_KEYS.")] = "default",
    new: Annotated[bool, typer.Option("--new", help="Make a new master secret for VLMQ_WEBHOOKS__SECRET.")] = False,
    data_dir: DataDirectory = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the secret that verifies webhooks."""
    import json as jsonlib

    from vlmq.signing import new_master_secret

    secrets = [new_master_secret()] if new else _tenant_secrets(_settings(data_dir), tenant)
    print(jsonlib.dumps({"secrets": secrets}) if json else "\n".join(secrets))


def healthcheck(
    worker: Annotated[bool, typer.Option("--worker", help="Ask about the worker of this host, not the API.")] = False,
) -> None:
    """Exit with 0 if the part here is well, else say what is wrong and exit with 1.

    For the health checks of containers.
    """
    from vlmq.config import get_settings
    from vlmq.health import trouble_of_api, trouble_of_worker

    trouble = (trouble_of_worker if worker else trouble_of_api)(get_settings())
    if trouble is not None:
        raise ExplainedError(trouble)


def _settings(data_dir: Path | None) -> "Settings":
    from vlmq.config import get_settings

    settings = get_settings()
    return settings if data_dir is None else settings.model_copy(update={"data_dir": data_dir})


def _tenant_secrets(settings: "Settings", tenant: str) -> list[str]:
    from vlmq.data_dir import with_own_secret
    from vlmq.signing import tenant_secrets

    if settings.api_keys and tenant not in settings.api_keys:
        raise ExplainedError(
            f"VLMQ_API_KEYS has no tenant {tenant!r}; --tenant takes {', '.join(sorted(settings.api_keys))}"
        )
    complete = with_own_secret(settings)
    if complete.webhooks.secret is None:
        raise ExplainedError(
            "VLMQ_WEBHOOKS__SECRET is not set, and `vlmq serve` has made no secret in "
            f"{settings.data_dir}; name its folder with --data-dir or VLMQ_DATA_DIR"
        )
    return tenant_secrets(complete, tenant)
