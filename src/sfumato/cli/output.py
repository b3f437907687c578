"""What commands print: results on standard output, everything else on standard error."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text


def print_json(value: Any) -> None:
    """Print one JSON document; ids and times are written as text."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings. Cells are shown as they are: a name in square brackets is no markup."""
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    # In a pipe there is no width to fit: nothing is folded or cut off.
    width = None if sys.stdout.isatty() else 1000
    Console(width=width, soft_wrap=width is not None).print(table)


def note(text: str) -> None:
    """Print a line that is not part of the result."""
    typer.echo(text, err=True)


def show_error(message: str, hint: str = "") -> None:
    """Print why the command failed, in one line."""
    note(" ".join(f"sfumato: {message} {hint}".split()))


@contextmanager
def download_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show that something is going on, and how far a download is once one says so in bytes had and needed."""
    columns = (SpinnerColumn(), TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = progress_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(title, total=None)
        yield lambda had_bytes, needed_bytes: bars.update(bar, completed=had_bytes, total=needed_bytes)


def progress_console() -> Console:
    """Return the console that progress is drawn on."""
    return Console(stderr=True)
