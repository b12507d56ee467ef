"""The command line. Each command parses its options, calls one library function and prints the result.

`options` declares the options that several commands share; `progress` draws the bars. Each other
module is one command or one group of commands.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from eyeline._version import __version__
from eyeline.cli.batch import app as batch_app
from eyeline.cli.data import app as data_app
from eyeline.cli.evaluate import evaluate
from eyeline.cli.extract import extract
from eyeline.cli.model import app as model_app
from eyeline.cli.report import report
from eyeline.cli.roi import app as roi_app
from eyeline.cli.score import score
from eyeline.cli.train import train
from eyeline.errors import EyelineError

app = typer.Typer(
    name="eyeline",
    help="Find where viewers look in a video; encode, score and report by it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(extract)
app.command()(score)
app.command()(report)
app.add_typer(model_app, name="model")
app.add_typer(roi_app, name="roi")
app.add_typer(batch_app, name="batch")
app.command()(evaluate)
app.command()(train)
app.add_typer(data_app, name="data")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"eyeline {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Find where viewers look in a video; encode, score and report by it."""


def main() -> None:
    """Run the command line; print an `EyelineError` as one line and return its exit code."""
    try:
        app()
    except EyelineError as exc:
        if isinstance(exc.__cause__, BrokenPipeError) and exc.message.startswith("stdout:"):
            sys.exit(141)  # the reader of stdout has what it wants, as in `| head`
        _print_error(exc)
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of stdout is gone (`| head`): redirect it, or the interpreter fails again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _print_error(exc: EyelineError) -> None:
    hint = f"\n  {exc.hint}" if exc.hint else ""
    sys.stderr.write(f"error: {exc.message}{hint}\n")
