"""Headers this dialect has beyond AUTOMATIC1111's: the request's task id, and what was asked without effect."""

from collections.abc import Sequence
from urllib.parse import quote

TASK_ID_HEADER = "X-Task-Id"
IGNORED_HEADER = "X-Sfumato-Ignored"

_MAX_CHARACTERS = 500
_SAFE = "()[]{}<>:;,=@!#$&'*+-./?_|~ "


def task_header(task_id: str) -> dict[str, str]:
    """Return the header that tells a request's task id."""
    return {TASK_ID_HEADER: _value(task_id)}


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """Return the header that names what was asked for without effect; none when all had effect."""
    return {IGNORED_HEADER: _value(", ".join(names))} if names else {}


def _value(text: str) -> str:
    # Whatever a client sent as an id or a name: only plain ASCII may stand in a header, line breaks never.
    return quote(text[:_MAX_CHARACTERS], safe=_SAFE, errors="replace")
