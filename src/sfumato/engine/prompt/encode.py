"""From a prompt's pieces to conditioning: tokens, chunks of the text encoder's length, weights on its states."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sfumato.core.errors import InvalidPrompt
from sfumato.core.requests import Emphasis, PromptOptions, PromptSyntax
from sfumato.engine.conditioning import Conditioning
from sfumato.engine.prompt.grammar import Piece, parse

CACHED_PROMPTS = 256


@dataclass(frozen=True)
class TextStates:
    """What a text network makes of chunks of tokens: states (n, length, width), and the first chunk's summary (P,)
    for families whose denoiser takes one.
    """

    states: Tensor
    pooled: Tensor | None = None


Vector = Mapping[int, Tensor]
"""What stands for one token in place of a row of the vocabulary: a vector (width,) for each text network's width."""


@dataclass(frozen=True)
class Injection:
    """A vector that takes the place of a token: at `place` of row `row` of the tokens given with it."""

    row: int
    place: int
    vector: Vector


@dataclass(frozen=True, eq=False)
class Embedding:
    """A textual inversion (Gal et al. 2022): vectors that its name stands for in a prompt."""

    name: str
    vectors: tuple[Vector, ...]


@dataclass(frozen=True)
class Within:
    """What else a prompt is encoded within: its embeddings, and a context that changes the text network for the while.

    `key` tells two apart.
    """

    key: Hashable = ()
    embeddings: tuple[Embedding, ...] = ()
    adapted: Callable[[], AbstractContextManager[object]] = nullcontext


class TextEncoder(Protocol):
    """A family's tokenizer and text network.

    `chunk_tokens` content tokens fit between `start_token` and `end_token`; `pad_token` fills the rest up.
    `keeps_mean`: weighted states are rescaled to their old mean, as Stable Diffusion's users expect.
    `embedding_widths`: the widths of the vectors that stand for a token, one for each text network; none when it
    takes no textual inversions.
    """

    chunk_tokens: int
    start_token: int
    end_token: int
    pad_token: int
    comma_token: int
    keeps_mean: bool
    embedding_widths: tuple[int, ...]

    def tokenize(self, text: str) -> list[int]:
        """Return the text's token ids, without start and end."""

    def encode(self, tokens: Tensor, skip_layers: int = 0, injections: Sequence[Injection] = ()) -> TextStates:
        """Return what conditions the denoiser, for tokens (n, length); `skip_layers` leaves out the last layers."""


Token = int | Vector
Words = Sequence[tuple[list[int], Embedding]]
"""Embeddings with the tokens of their names, longest first."""


@dataclass
class Chunk:
    """Content tokens of one pass of the text encoder, each with its weight."""

    tokens: list[Token] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def split_off(self, index: int) -> "Chunk":
        """Cut everything from `index` on off this chunk and return it."""
        tail = Chunk(self.tokens[index:], self.weights[index:])
        del self.tokens[index:], self.weights[index:]
        return tail


def chunked(
    pieces: list[Piece],
    encoder: TextEncoder,
    *,
    backtrack_tokens: int = PromptOptions().comma_backtrack_tokens,
    embeddings: Sequence[Embedding] = (),
) -> list[Chunk]:
    """Lay tokens out in chunks; there is always at least one. Raises `InvalidPrompt` for an embedding that fits none.

    A full chunk is cut after its last comma if that lies within `backtrack_tokens`. An embedding is never cut.
    """
    words = _words(embeddings, encoder)
    chunks = [Chunk()]
    for piece in pieces:
        if piece.starts_chunk:
            chunks.append(Chunk())
        for unit in _units(encoder.tokenize(piece.text), words):
            if len(unit) > encoder.chunk_tokens:
                raise InvalidPrompt(f"An embedding of {len(unit)} vectors is longer than a chunk.", field="prompt")
            if len(chunks[-1]) + len(unit) > encoder.chunk_tokens:
                is_word = isinstance(unit[0], int)
                chunks.append(_overflow(chunks[-1], encoder.comma_token, backtrack_tokens) if is_word else Chunk())
            chunks[-1].tokens += unit
            chunks[-1].weights += [piece.weight] * len(unit)
    return chunks


def _words(embeddings: Sequence[Embedding], encoder: TextEncoder) -> Words:
    words = [(encoder.tokenize(embedding.name), embedding) for embedding in embeddings]
    return sorted((word for word in words if word[0]), key=lambda word: len(word[0]), reverse=True)


def _units(tokens: list[int], words: Words) -> list[list[Token]]:
    """Return what may not be parted: single tokens, and the vectors of an embedding whose name the tokens spell."""
    units: list[list[Token]] = []
    place = 0
    while place < len(tokens):
        for name, embedding in words:
            if tokens[place : place + len(name)] == name:
                units.append(list(embedding.vectors))
                place += len(name)
                break
        else:
            units.append([tokens[place]])
            place += 1
    return units


def _overflow(full: Chunk, comma: int, backtrack_tokens: int) -> Chunk:
    """Return the chunk after a full one: empty, or with the words after the full one's last comma, if it is near."""
    for index in range(len(full) - 1, max(len(full) - 1 - backtrack_tokens, 0), -1):
        if full.tokens[index] == comma:
            return full.split_off(index + 1)
    return Chunk()


class PromptEncoder:
    """Turns prompts into conditioning and remembers the last ones.

    The empty negative prompt hits the memory nearly always, which halves the text encoder's work.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self._known: OrderedDict[Hashable, Conditioning] = OrderedDict()

    @torch.inference_mode()
    def encode(
        self,
        prompt: str,
        syntax: PromptSyntax,
        options: PromptOptions = PromptOptions(),  # noqa: B008 (frozen)
        within: Within | None = None,
    ) -> Conditioning:
        """Return the prompt's conditioning, states (chunks * length, width); raises `InvalidPrompt`."""
        within = within or Within()
        key = (prompt, syntax, options, within.key)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        pieces = parse(prompt, syntax, options.emphasis)
        chunks = chunked(
            pieces, self.encoder, backtrack_tokens=options.comma_backtrack_tokens, embeddings=within.embeddings
        )
        with within.adapted():
            conditioning = self._encode(chunks, options)
        self._known[key] = conditioning
        if len(self._known) > CACHED_PROMPTS:
            self._known.popitem(last=False)
        return conditioning

    def _encode(self, chunks: list[Chunk], options: PromptOptions) -> Conditioning:
        tokens = torch.tensor([self._padded(chunk.tokens) for chunk in chunks])
        injections = [
            Injection(row, 1 + place, token)
            for row, chunk in enumerate(chunks)
            for place, token in enumerate(chunk.tokens)
            if not isinstance(token, int)
        ]
        encoded = self.encoder.encode(tokens, options.clip_skip - 1, injections)
        states = encoded.states.float()
        weights = torch.ones(tokens.shape, device=states.device)
        for row, chunk in enumerate(chunks):
            weights[row, 1 : 1 + len(chunk)] = torch.tensor(chunk.weights, device=states.device)
        if (weights != 1).any():
            states = self._weighted(states, weights, options.emphasis)
        extras = {} if encoded.pooled is None else {"text_embeds": encoded.pooled.float()}
        return Conditioning(states.flatten(0, 1), extras)

    def _padded(self, tokens: list[Token]) -> list[int]:
        encoder = self.encoder
        known = [token if isinstance(token, int) else encoder.comma_token for token in tokens]
        padding = [encoder.pad_token] * (encoder.chunk_tokens - len(tokens))
        return [encoder.start_token, *known, encoder.end_token, *padding]

    def _weighted(self, states: Tensor, weights: Tensor, emphasis: Emphasis) -> Tensor:
        weighted = states * weights.unsqueeze(-1)
        if emphasis is Emphasis.NO_NORM or not self.encoder.keeps_mean:
            return weighted
        mean = states.mean(dim=(1, 2), keepdim=True)
        weighted_mean = weighted.mean(dim=(1, 2), keepdim=True)
        return weighted * (mean / weighted_mean)
