"""The prompt language, by the examples of its description and by properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import InvalidPrompt
from sfumato.core.requests import Emphasis, PromptSyntax
from sfumato.engine.prompt.grammar import MOST_PARTS, Piece, parse, parse_attention, split_and


def weights(prompt: str) -> list[tuple[str, float]]:
    return [(text, round(weight, 4)) for text, weight in parse_attention(prompt)]


def test_the_descriptions_example() -> None:
    assert weights("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).") == [
        ("a ", 1.0),
        ("house", 1.573),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641),
        (".", 1.1),
    ]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [("", 1.0)]),
        ("plain words", [("plain words", 1.0)]),
        ("(x)", [("x", 1.1)]),
        ("[x]", [("x", 0.9091)]),
        ("(x: 1.3 )", [("x", 1.3)]),
        ("(x:-.5)", [("x", -0.5)]),
        (r"\(x\) \[y\] \\", [("(x) [y] \\", 1.0)]),
        ("an (open one", [("an ", 1.0), ("open one", 1.1)]),
        ("closed) twice]", [("closed) twice]", 1.0)]),
        ("a:b", [("a:b", 1.0)]),
        ("(a)(b)", [("ab", 1.1)]),
    ],
)
def test_brackets(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert weights(prompt) == expected


@given(st.text(alphabet="ab ,:()[]\\.123-\n", max_size=60))
def test_any_text_parses_and_keeps_its_words(prompt: str) -> None:
    runs = parse_attention(prompt)
    assert runs
    kept = "".join(text for text, _ in runs)
    assert [c for c in kept if c in "ab"] == [c for c in prompt if c in "ab"]


@given(st.text(alphabet="xyz ", max_size=30))
def test_escaped_brackets_are_text(words: str) -> None:
    assert weights(rf"\({words}\)") == [(f"({words})", 1.0)]


def test_break_starts_a_chunk() -> None:
    pieces = parse("sky BREAK (sea BREAK sun)", PromptSyntax.A1111)
    assert [(piece.text, piece.starts_chunk) for piece in pieces] == [
        ("sky", False),
        ("", True),
        ("sea", False),
        ("sun", True),
    ]


def test_a_plain_prompt_is_read_as_it_stands() -> None:
    prompt = "CATS AND DOGS (cute) [b&w:0.5] <lora:x:1>"
    assert parse(prompt, PromptSyntax.PLAIN) == [Piece(prompt)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a AND b", [("a", 1.0), ("b", 1.0)]),
        ("a :1.2 AND b:-.5 AND c", [("a", 1.2), ("b", -0.5), ("c", 1.0)]),
        ("a : 2  AND b", [("a", 2.0), ("b", 1.0)]),
        ("(a:1.2) AND b", [("(a:1.2)", 1.0), ("b", 1.0)]),
        ("sand ANDY and", [("sand ANDY and", 1.0)]),
        ("at 16:9", [("at 16:9", 1.0)]),
    ],
)
def test_and_composes_weighted_prompts(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert split_and(prompt) == expected


def test_more_parts_than_a_forward_pass_holds_are_refused() -> None:
    assert len(split_and(" AND ".join("x" * MOST_PARTS))) == MOST_PARTS
    with pytest.raises(InvalidPrompt, match="at most 16"):
        split_and(" AND ".join("x" * (MOST_PARTS + 1)))


def test_ignored_emphasis_drops_the_weights_and_keeps_the_words_and_breaks() -> None:
    pieces = parse("a (b:1.5) [c] BREAK d", PromptSyntax.A1111, Emphasis.IGNORE)
    assert pieces == [Piece("a b c"), Piece("d", starts_chunk=True)]


def test_without_emphasis_brackets_are_text() -> None:
    assert parse("a (b:1.5) [c]", PromptSyntax.A1111, Emphasis.NONE) == [Piece("a (b:1.5) [c]")]


@given(st.text(max_size=60))
def test_a_composition_without_and_is_the_prompt_itself(prompt: str) -> None:
    assert " AND " in f" {prompt} " or "AND" in prompt or split_and(prompt) == [(prompt, 1.0)]
