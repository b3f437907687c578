"""The prompt language's grammar of attention: text in, weighted pieces out. Pure text work; no tokens, no tensors.

The language is that of the AUTOMATIC1111 API (docs/sdapi.md, "Prompt language"): `(x)` weighs x by 1.1, `[x]` by
1/1.1, `(x:1.3)` by 1.3, nested weights multiply, `\\(` is a bracket, BREAK starts a new chunk, AND composes prompts.
Text that changes from step to step is `prompt.schedule`'s, which comes first.
"""

import re
from dataclasses import dataclass

from sfumato.core.errors import InvalidPrompt
from sfumato.core.requests import Emphasis, PromptSyntax

ROUND_WEIGHT = 1.1
SQUARE_WEIGHT = 1 / 1.1

_TOKEN = re.compile(
    r"""
    (?P<escape>\\[()\[\]\\]) | (?P<open>[(\[]) | (?P<weight>:\s*(?P<number>[+-]?\d*\.?\d+)\s*\)) | (?P<close>[)\]])
    | (?P<text>[^\\()\[\]:]+ | .)
    """,
    re.VERBOSE | re.DOTALL,
)
_BREAK = re.compile(r"(?<!\s)\s*\bBREAK\b\s*")  # looks back, so that a long run of blanks is read only once
_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r":\s*([+-]?(?:\d{1,9}\.?\d{0,9}|\.\d{1,9}))\Z")
MOST_PARTS = 16
"""Each part of a composition is a row of every forward pass."""


@dataclass(frozen=True)
class Piece:
    """A run of text and the weight of its words; `starts_chunk` is true after a BREAK."""

    text: str
    weight: float = 1.0
    starts_chunk: bool = False


def split_and(prompt: str) -> list[tuple[str, float]]:
    """Split a prompt into the parts that AND composes, each with the weight after its last colon.

    Without AND the prompt is one part as it stands. Raises `InvalidPrompt` for more parts than `MOST_PARTS`.
    """
    parts = _AND.split(prompt)
    if len(parts) == 1:
        return [(prompt, 1.0)]
    if len(parts) > MOST_PARTS:
        raise InvalidPrompt(f"AND composes at most {MOST_PARTS} prompts, not {len(parts)}.", field="prompt")
    return [_weighted(part.strip()) for part in parts]


def _weighted(part: str) -> tuple[str, float]:
    match = _WEIGHT.search(part)
    return (part[: match.start()].rstrip(), float(match[1])) if match else (part, 1.0)


def parse(prompt: str, syntax: PromptSyntax, emphasis: Emphasis = Emphasis.ORIGINAL) -> list[Piece]:
    """Return the prompt's pieces; a plain prompt is one piece as it stands, and so is one without emphasis."""
    if syntax is PromptSyntax.PLAIN or emphasis is Emphasis.NONE:
        return [Piece(prompt)]
    runs = parse_attention(prompt)
    if emphasis is Emphasis.IGNORE:
        runs = _merged([(text, 1.0) for text, _ in runs])
    return _split_breaks(runs)


def parse_attention(prompt: str) -> list[tuple[str, float]]:
    """Split a prompt into (text, weight) runs, neighbours of equal weight merged.

    An opening bracket that is never closed weighs everything after it; a closing one that was never opened is text.
    """
    runs: list[tuple[str, float]] = []
    brackets: list[tuple[str, int]] = []  # (kind, index of the first run inside)

    def weigh(since: int, factor: float) -> None:
        runs[since:] = [(text, weight * factor) for text, weight in runs[since:]]

    for match in _TOKEN.finditer(prompt):
        token = match.group()
        if match["escape"]:
            runs.append((token[1], 1.0))
        elif match["open"]:
            brackets.append((token, len(runs)))
        elif match["weight"] and brackets and brackets[-1][0] == "(":
            weigh(brackets.pop()[1], float(match["number"]))
        elif match["close"] and brackets and brackets[-1][0] == {")": "(", "]": "["}[token]:
            opened, since = brackets.pop()
            weigh(since, ROUND_WEIGHT if opened == "(" else SQUARE_WEIGHT)
        else:
            runs.append((token, 1.0))
    for opened, since in brackets:
        weigh(since, ROUND_WEIGHT if opened == "(" else SQUARE_WEIGHT)
    return _merged(runs) or [("", 1.0)]


def _merged(runs: list[tuple[str, float]]) -> list[tuple[str, float]]:
    merged: list[tuple[str, float]] = []
    for text, weight in runs:
        if merged and abs(merged[-1][1] - weight) < 1e-9:
            merged[-1] = (merged[-1][0] + text, merged[-1][1])
        else:
            merged.append((text, weight))
    return merged


def _split_breaks(runs: list[tuple[str, float]]) -> list[Piece]:
    pieces: list[Piece] = []
    for text, weight in runs:
        for number, part in enumerate(_BREAK.split(text)):
            pieces.append(Piece(part, weight, starts_chunk=number > 0))
    return pieces
