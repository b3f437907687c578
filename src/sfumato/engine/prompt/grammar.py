"""The prompt language's grammar: text in, weighted pieces out. Pure text work; no tokens, no tensors.

The language is that of the AUTOMATIC1111 API (docs/sdapi.md, "Prompt language"): `(x)` weighs x by 1.1, `[x]` by
1/1.1, `(x:1.3)` by 1.3, nested weights multiply, `\\(` is a bracket, BREAK starts a new chunk.
"""

import re
from dataclasses import dataclass

from sfumato.core.errors import InvalidPrompt
from sfumato.core.requests import PromptSyntax

ROUND_WEIGHT = 1.1
SQUARE_WEIGHT = 1 / 1.1

_TOKEN = re.compile(
    r"""
    (?P<escape>\\[()\[\]\\]) | (?P<open>[(\[]) | (?P<weight>:\s*(?P<number>[+-]?\d*\.?\d+)\s*\)) | (?P<close>[)\]])
    | (?P<text>[^\\()\[\]:]+ | .)
    """,
    re.VERBOSE | re.DOTALL,
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_NOT_YET = (
    (re.compile(r"\bAND\b"), "prompts composed with AND"),
    (re.compile(r"(?<!\\)\[[^\[\]]*:[^\[\]]*:?\s*\d*\.?\d+\s*\]"), "prompt editing ([from:to:when])"),
    (re.compile(r"(?<!\\)\[[^\[\]]*\|[^\[\]]*\]"), "alternating words ([a|b])"),
    (re.compile(r"<\w+:[^>]+>"), "extra networks (<lora:...>)"),
)


@dataclass(frozen=True)
class Piece:
    """A run of text and the weight of its words; `starts_chunk` is true after a BREAK."""

    text: str
    weight: float = 1.0
    starts_chunk: bool = False


def parse(prompt: str, syntax: PromptSyntax) -> list[Piece]:
    """Return the prompt's pieces; a plain prompt is one piece as it stands.

    Raises `InvalidPrompt` for parts of the language that this version does not carry out, rather than drawing them
    as words.
    """
    if syntax is PromptSyntax.PLAIN:
        return [Piece(prompt)]
    for pattern, name in _NOT_YET:
        if pattern.search(prompt):
            raise InvalidPrompt(
                f"This version does not carry out {name}.", field="prompt", hint="Remove it, or escape the brackets."
            )
    return _split_breaks(parse_attention(prompt))


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
