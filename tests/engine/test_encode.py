"""Prompts become chunks of the text encoder's length, and weights act on its states."""

import pytest
from torch import Tensor

from sfumato.core.requests import PromptSyntax
from sfumato.engine.families.text import shipped_clip_tokenizer
from sfumato.engine.prompt.encode import PromptEncoder, TextStates, chunked
from sfumato.engine.prompt.grammar import Piece

COMMA = 1


class LetterText:
    """A text encoder whose tokens are letters and whose states show the token in every place."""

    chunk_tokens = 8
    start_token, end_token, pad_token, comma_token = 2, 3, 0, COMMA

    def __init__(self, *, keeps_mean: bool = False) -> None:
        self.keeps_mean = keeps_mean
        self.calls = 0

    def tokenize(self, text: str) -> list[int]:
        return [COMMA if letter == "," else ord(letter) for letter in text if letter != " "]

    def encode(self, tokens: Tensor, skip_layers: int = 0) -> TextStates:
        self.calls += 1
        return TextStates(tokens.float().unsqueeze(-1).expand(-1, -1, 2))


def letters(prompt: str) -> list[str]:
    encoder = LetterText()
    pieces = [Piece(part, starts_chunk=i > 0) for i, part in enumerate(prompt.split("|"))]
    return ["".join("," if t == COMMA else chr(t) for t in chunk.tokens) for chunk in chunked(pieces, encoder)]


def test_short_prompts_are_one_chunk_and_empty_ones_too() -> None:
    assert letters("abc") == ["abc"]
    assert letters("") == [""]


def test_long_prompts_continue_in_the_next_chunk() -> None:
    assert letters("abcdefghijklm") == ["abcdefgh", "ijklm"]


def test_a_full_chunk_is_cut_after_its_last_comma() -> None:
    assert letters("abcde,ghijkl") == ["abcde,", "ghijkl"]


def test_break_fills_up_the_chunk() -> None:
    assert letters("ab|cd") == ["ab", "cd"]


def test_chunks_are_framed_and_padded() -> None:
    encoder = LetterText()
    states = PromptEncoder(encoder).encode("ab", PromptSyntax.PLAIN).states
    assert states[:, 0].tolist() == [2, ord("a"), ord("b"), 3, 0, 0, 0, 0, 0, 0]


def test_weights_multiply_the_states_of_their_words() -> None:
    states = PromptEncoder(LetterText()).encode("a(b:1.5)", PromptSyntax.A1111).states
    assert states[1:3, 0].tolist() == [ord("a"), 1.5 * ord("b")]


def test_weighted_states_keep_their_mean_where_the_family_asks() -> None:
    plain = PromptEncoder(LetterText(keeps_mean=True)).encode("ab", PromptSyntax.A1111).states
    weighted = PromptEncoder(LetterText(keeps_mean=True)).encode("a(b:1.5)", PromptSyntax.A1111).states
    assert weighted.mean().item() == pytest.approx(plain.mean().item())
    assert weighted[2, 0] / weighted[1, 0] == pytest.approx(1.5 * ord("b") / ord("a"))


def test_a_prompt_is_encoded_once() -> None:
    encoder = LetterText()
    prompts = PromptEncoder(encoder)
    assert prompts.encode("x", PromptSyntax.PLAIN) is prompts.encode("x", PromptSyntax.PLAIN)
    assert encoder.calls == 1


def test_clips_tokenizer_gives_the_published_ids() -> None:
    tokenizer = shipped_clip_tokenizer()
    assert tokenizer.encode("A photo of  a CAT").ids == [320, 1125, 539, 320, 2368]
    assert tokenizer.get_vocab_size() == 49408
    assert tokenizer.encode("1024 it's, é").ids == [272, 271, 273, 275, 585, 568, 267, 4166]
