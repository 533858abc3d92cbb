"""The command line, `vlmq`. Commands import what they need when they run, so that help texts and mistakes are quick."""

import sys
from typing import Annotated

import typer

from vlmq import __version__, cli_jobs, cli_parts
from vlmq.errors import ExplainedError

app = typer.Typer(
    name="vlmq",
    help="An asynchronous job service for vision-language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli_parts.register(app)
cli_jobs.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vlmq {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command; what its user can put right is told in one line, without a traceback."""
    try:
        app()
    except ExplainedError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
