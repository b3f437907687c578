"""Prompts become chunks of the text encoder's length, and weights act on its states."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sfumato.core.errors import InvalidPrompt
from sfumato.core.requests import Emphasis, PromptOptions, PromptSyntax
from sfumato.engine.families.text import shipped_clip_tokenizer
from sfumato.engine.prompt.encode import Embedding, Injection, PromptEncoder, TextStates, Token, Within, chunked
from sfumato.engine.prompt.grammar import Piece

COMMA = 1


class LetterText:
    """A text encoder whose tokens are letters and whose states show the token in every place."""

    chunk_tokens = 8
    embedding_widths = (2,)
    start_token, end_token, pad_token, comma_token = 2, 3, 0, COMMA

    def __init__(self, *, keeps_mean: bool = False) -> None:
        self.keeps_mean = keeps_mean
        self.calls = 0

    def tokenize(self, text: str) -> list[int]:
        return [COMMA if letter == "," else ord(letter) for letter in text if letter != " "]

    def encode(self, tokens: Tensor, skip_layers: int = 0, injections: Sequence[Injection] = ()) -> TextStates:
        self.calls += 1
        states = tokens.float().unsqueeze(-1).repeat(1, 1, 2) - 1000 * skip_layers
        for each in injections:
            states[each.row, each.place] = each.vector[2]
        return TextStates(states)


def letters(prompt: str, *, backtrack_tokens: int = 20, embeddings: Sequence[Embedding] = ()) -> list[str]:
    """Return the chunks' contents; a vector of an embedding shows as `*`."""
    pieces = [Piece(part, starts_chunk=i > 0) for i, part in enumerate(prompt.split("|"))]
    chunks = chunked(pieces, LetterText(), backtrack_tokens=backtrack_tokens, embeddings=embeddings)
    return ["".join(_shown(token) for token in chunk.tokens) for chunk in chunks]


def _shown(token: Token) -> str:
    if not isinstance(token, int):
        return "*"
    return "," if token == COMMA else chr(token)


def embedding(name: str, *vectors: float) -> Embedding:
    return Embedding(name, tuple({2: torch.full((2,), value)} for value in vectors))


def test_short_prompts_are_one_chunk_and_empty_ones_too() -> None:
    assert letters("abc") == ["abc"]
    assert letters("") == [""]


def test_long_prompts_continue_in_the_next_chunk() -> None:
    assert letters("abcdefghijklm") == ["abcdefgh", "ijklm"]


def test_a_full_chunk_is_cut_after_its_last_comma() -> None:
    assert letters("abcde,ghijkl") == ["abcde,", "ghijkl"]


def test_a_comma_farther_back_than_asked_does_not_cut_a_chunk() -> None:
    assert letters("abcd,fghijkl", backtrack_tokens=4) == ["abcd,", "fghijkl"]
    assert letters("abcd,fghijkl", backtrack_tokens=3) == ["abcd,fgh", "ijkl"]
    assert letters("abcdefg,ijkl", backtrack_tokens=0) == ["abcdefg,", "ijkl"]


def test_an_embedding_takes_a_place_for_each_of_its_vectors() -> None:
    assert letters("a xy b xz", embeddings=[embedding("xy", 1, 2, 3)]) == ["a***bxz"]


def test_of_embeddings_that_begin_alike_the_longer_name_wins() -> None:
    assert letters("xyz xy", embeddings=[embedding("xy", 1), embedding("xyz", 1, 2)]) == ["***"]


def test_an_embedding_is_never_cut_in_two() -> None:
    assert letters("abcdef xy g", embeddings=[embedding("xy", 1, 2, 3)]) == ["abcdef", "***g"]
    assert letters("abcde, xy g", embeddings=[embedding("xy", 1, 2, 3)]) == ["abcde,", "***g"]


def test_an_embedding_longer_than_a_chunk_is_refused() -> None:
    with pytest.raises(InvalidPrompt, match="9 vectors"):
        letters("x", embeddings=[embedding("x", *range(9))])


def test_an_embeddings_vectors_stand_in_its_names_place_and_are_weighted_like_words() -> None:
    within = Within(key="e", embeddings=(embedding("xy", 0.5, 0.25),))
    states = PromptEncoder(LetterText()).encode("a(xy:2)b", PromptSyntax.A1111, within=within).states
    assert states[1:5, 0].tolist() == [ord("a"), 1.0, 0.5, ord("b")]


def test_clip_skip_leaves_out_all_but_one_of_so_many_layers() -> None:
    states = PromptEncoder(LetterText()).encode("a", PromptSyntax.A1111, PromptOptions(clip_skip=3)).states
    assert states[1, 0] == ord("a") - 2000


def test_a_prompt_is_encoded_anew_for_other_options_and_other_adapters() -> None:
    encoder = LetterText()
    prompts = PromptEncoder(encoder)
    prompts.encode("x", PromptSyntax.A1111)
    prompts.encode("x", PromptSyntax.A1111, PromptOptions(clip_skip=2))
    prompts.encode("x", PromptSyntax.A1111, PromptOptions(), Within(key="lora"))
    assert encoder.calls == 3


def test_unnormed_emphasis_only_multiplies() -> None:
    options = PromptOptions(emphasis=Emphasis.NO_NORM)
    states = PromptEncoder(LetterText(keeps_mean=True)).encode("a(b:1.5)", PromptSyntax.A1111, options).states
    assert states[1:3, 0].tolist() == [ord("a"), 1.5 * ord("b")]


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
