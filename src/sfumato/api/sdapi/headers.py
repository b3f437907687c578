"""Headers this dialect has beyond AUTOMATIC1111's: the request's task id, what was asked without effect, and notes."""

from collections.abc import Sequence
from urllib.parse import quote

TASK_ID_HEADER = "X-Task-Id"
IGNORED_HEADER = "X-Sfumato-Ignored"
NOTES_HEADER = "X-Sfumato-Notes"

_MAX_CHARACTERS = 500
_MAX_NOTES_CHARACTERS = 2000
_SAFE = "()[]{}<>:;,=@!#$&'*+-./?_|~ "


def task_header(task_id: str) -> dict[str, str]:
    """Return the header that tells a request's task id."""
    return {TASK_ID_HEADER: _value(task_id)}


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """Return the header that names what was asked for without effect; none when all had effect."""
    return {IGNORED_HEADER: _value(", ".join(names))} if names else {}


def notes_header(notes: Sequence[str]) -> dict[str, str]:
    """Return the header with sentences about what was done otherwise than asked; none when there are none."""
    return {NOTES_HEADER: _value(" ".join(notes), _MAX_NOTES_CHARACTERS)} if notes else {}


def _value(text: str, most_characters: int = _MAX_CHARACTERS) -> str:
    # Whatever a client sent as an id or a name: only plain ASCII may stand in a header, line breaks never.
    return quote(text[:most_characters], safe=_SAFE, errors="replace")
