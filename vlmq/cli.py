"""The command line, `vlmq`. Commands import what they need when they run, so that help texts and mistakes are quick."""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vlmq import __version__, cli_jobs, cli_models, cli_parts
from vlmq.cli_terminal import harmless
from vlmq.errors import ExplainedError

_OUTPUT_GONE = (errno.EPIPE, errno.ENOSPC, errno.EIO)

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
app.add_typer(cli_models.commands, name="models")


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
    _open_closed_output()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except ExplainedError as error:
        print(harmless(str(error)), file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _OUTPUT_GONE:
            raise
        # What is still buffered would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            print(f"the output cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def _open_closed_output() -> None:
    """Python has no streams where a shell closed theirs (`>&-`), and a file opened later would get their numbers."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
