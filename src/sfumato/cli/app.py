"""The command line as a whole: its commands, and how any failure ends in one line and an exit code.

Exit codes: 0 done, 1 could not be done, 2 asked wrongly, 130 interrupted (docs/cli.md).
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from sfumato import __version__
from sfumato.cli import generate, keys, models, serve, users
from sfumato.cli.output import show_error
from sfumato.core.errors import InvalidRequest, SfumatoError

FAILED = 1
ASKED_WRONGLY = 2

app = typer.Typer(
    name="sfumato",
    help="Pictures from prompts, on your own machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("serve")(serve.serve)
app.command("generate")(generate.generate)
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(users.app, name="users")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sfumato {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Take what stands before the command."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code; the entry point of the package."""
    try:
        app(args=arguments if arguments is None else list(arguments))
    except SfumatoError as error:
        show_error(error.message, error.hint)
        sys.exit(ASKED_WRONGLY if isinstance(error, InvalidRequest) else FAILED)
    except Exception as error:
        if os.environ.get("SFUMATO_LOG_LEVEL", "").lower() == "debug":
            raise
        reason = str(error).partition("\n")[0]
        show_error(f"Something went wrong inside ({type(error).__name__}: {reason}).", "Set SFUMATO_LOG_LEVEL=debug.")
        sys.exit(FAILED)
    sys.exit(0)
