"""The four options about prompts that a caller may change: in a request, or for all their requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sfumato.core.errors import InvalidRequest
from sfumato.core.requests import MAX_CLIP_SKIP, Emphasis, PromptOptions

CLIP_SKIP = "CLIP_stop_at_last_layers"
EMPHASIS = "emphasis"
COMMENTS = "enable_prompt_comments"
BACKTRACK = "comma_padding_backtrack"
KEYS = frozenset({CLIP_SKIP, EMPHASIS, COMMENTS, BACKTRACK})


@dataclass(frozen=True, kw_only=True)
class PromptChoices:
    """How a caller's prompts are read; `has_comments`: what follows a `#` in a line is left out."""

    options: PromptOptions = field(default_factory=PromptOptions)
    has_comments: bool = True

    def shown(self) -> dict[str, Any]:
        """Return the options by key, whole numbers as floats, as upstream shows them."""
        return {
            CLIP_SKIP: float(self.options.clip_skip),
            EMPHASIS: self.options.emphasis.value,
            COMMENTS: self.has_comments,
            BACKTRACK: float(self.options.comma_backtrack_tokens),
        }

    def changed(self, wanted: Mapping[str, Any]) -> "PromptChoices":
        """Return these choices with those of `wanted` that are given. Raises `InvalidRequest` for a bad value."""
        given = {key: value for key, value in wanted.items() if key in KEYS and value is not None}
        options = self.options
        if CLIP_SKIP in given:
            options = replace(options, clip_skip=_whole(CLIP_SKIP, given[CLIP_SKIP], 1, MAX_CLIP_SKIP))
        if BACKTRACK in given:
            options = replace(options, comma_backtrack_tokens=_whole(BACKTRACK, given[BACKTRACK], 0, 74))
        if EMPHASIS in given:
            options = replace(options, emphasis=_emphasis(given[EMPHASIS]))
        return PromptChoices(options=options, has_comments=bool(given.get(COMMENTS, self.has_comments)))


def _whole(name: str, value: object, low: int, high: int) -> int:
    try:
        number = int(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"{name} must be a number.", field=name) from None
    if not low <= number <= high:
        raise InvalidRequest(f"{name} must be between {low} and {high}, not {number}.", field=name)
    return number


def _emphasis(value: object) -> Emphasis:
    for mode in Emphasis:
        if str(value).strip().casefold() == mode.value.casefold():
            return mode
    modes = ", ".join(mode.value for mode in Emphasis)
    raise InvalidRequest(f"{EMPHASIS} must be one of {modes}.", field=EMPHASIS)
