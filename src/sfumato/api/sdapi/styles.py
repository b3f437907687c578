"""Styles: pieces of prompts under a name, from a CSV file with the columns name, prompt and negative_prompt."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from sfumato.settings import Settings

logger = structlog.get_logger(__name__)

FILE_NAME = "styles.csv"
_PLACE = "{prompt}"
_NO_STYLES = ("", "none")


@dataclass(frozen=True, kw_only=True)
class Style:
    """A named pair of pieces."""

    name: str
    prompt: str
    negative_prompt: str

    def listed(self) -> dict[str, str]:
        """Return this style as the wire lists it."""
        return asdict(self)


class StyleBook:
    """The styles of an installation. The file is read on each use: it is small, and people edit it meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of(cls, settings: Settings) -> "StyleBook":
        """Return the book that the settings name."""
        return cls(settings.styles_file or settings.data_dir / FILE_NAME)

    def styles(self) -> list[Style]:
        """Return all styles in the file's order; none, with a line in the log, when it cannot be read."""
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                return [style for row in csv.DictReader(file) if (style := _style(row)).name]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, csv.Error) as error:
            logger.warning("the styles cannot be read", file=str(self._path), error=str(error))
            return []

    def apply(self, prompt: str, negative_prompt: str, names: Iterable[str]) -> tuple[str, str, list[str]]:
        """Return both prompts with styles put in, in order, and sentences about those there are none of."""
        wanted = [name for name in names if name.strip().casefold() not in _NO_STYLES]
        styles = {style.name: style for style in self.styles()} if wanted else {}
        notes = []
        for name in wanted:
            if style := styles.get(name):
                prompt = _merged(prompt, style.prompt)
                negative_prompt = _merged(negative_prompt, style.negative_prompt)
            else:
                notes.append(f"There is no style named {name[:100]!r}.")
        return prompt, negative_prompt, notes


def _style(row: dict[str, str | None]) -> Style:
    return Style(
        name=(row.get("name") or "").strip(),
        prompt=row.get("prompt") or "",
        negative_prompt=row.get("negative_prompt") or "",
    )


def _merged(prompt: str, piece: str) -> str:
    """Put a style's piece around the prompt where it says so, else after it."""
    if _PLACE in piece:
        return piece.replace(_PLACE, prompt)
    return ", ".join(part for part in (prompt.strip(), piece.strip()) if part)
