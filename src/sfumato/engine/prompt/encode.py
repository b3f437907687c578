"""From a prompt's pieces to conditioning: tokens, chunks of the text encoder's length, weights on its states."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sfumato.core.requests import PromptSyntax
from sfumato.engine.conditioning import Conditioning
from sfumato.engine.prompt.grammar import Piece, parse

COMMA_BACKTRACK_TOKENS = 20
"""A chunk that fills up is cut after a comma if one lies within so many tokens (docs/sdapi.md, "Chunks")."""

CACHED_PROMPTS = 256


@dataclass(frozen=True)
class TextStates:
    """What a text network makes of chunks of tokens: states (n, length, width), and the first chunk's summary (P,)
    for families whose denoiser takes one.
    """

    states: Tensor
    pooled: Tensor | None = None


class TextEncoder(Protocol):
    """A family's tokenizer and text network.

    `chunk_tokens` content tokens fit between `start_token` and `end_token`; `pad_token` fills the rest up.
    `keeps_mean`: weighted states are rescaled to their old mean, as Stable Diffusion's users expect.
    """

    chunk_tokens: int
    start_token: int
    end_token: int
    pad_token: int
    comma_token: int
    keeps_mean: bool

    def tokenize(self, text: str) -> list[int]:
        """Return the text's token ids, without start and end."""

    def encode(self, tokens: Tensor, skip_layers: int = 0) -> TextStates:
        """Return what conditions the denoiser, for tokens (n, length); `skip_layers` leaves out the last layers."""


@dataclass
class Chunk:
    """Content tokens of one pass of the text encoder, each with its weight."""

    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def split_off(self, index: int) -> "Chunk":
        """Cut everything from `index` on off this chunk and return it."""
        tail = Chunk(self.tokens[index:], self.weights[index:])
        del self.tokens[index:], self.weights[index:]
        return tail


def chunked(pieces: list[Piece], encoder: TextEncoder) -> list[Chunk]:
    """Lay tokens out in chunks; there is always at least one."""
    chunks = [Chunk()]
    for piece in pieces:
        if piece.starts_chunk:
            chunks.append(Chunk())
        for token in encoder.tokenize(piece.text):
            if len(chunks[-1]) == encoder.chunk_tokens:
                chunks.append(_overflow(chunks[-1], encoder.comma_token))
            chunks[-1].tokens.append(token)
            chunks[-1].weights.append(piece.weight)
    return chunks


def _overflow(full: Chunk, comma: int) -> Chunk:
    """Return the chunk after a full one: empty, or with the words after the full one's last comma, if it is near."""
    for index in range(len(full) - 1, max(len(full) - 1 - COMMA_BACKTRACK_TOKENS, 0), -1):
        if full.tokens[index] == comma:
            return full.split_off(index + 1)
    return Chunk()


class PromptEncoder:
    """Turns prompts into conditioning and remembers the last ones.

    The empty negative prompt hits the memory nearly always, which halves the text encoder's work.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._known: OrderedDict[tuple[str, PromptSyntax], Conditioning] = OrderedDict()

    @torch.inference_mode()
    def encode(self, prompt: str, syntax: PromptSyntax) -> Conditioning:
        """Return the prompt's conditioning, states (chunks * length, width); raises `InvalidPrompt`."""
        key = (prompt, syntax)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        conditioning = self._encode(chunked(parse(prompt, syntax), self._encoder))
        self._known[key] = conditioning
        if len(self._known) > CACHED_PROMPTS:
            self._known.popitem(last=False)
        return conditioning

    def _encode(self, chunks: list[Chunk]) -> Conditioning:
        tokens = torch.tensor([self._padded(chunk.tokens) for chunk in chunks])
        encoded = self._encoder.encode(tokens)
        states = encoded.states.float()
        weights = torch.ones(tokens.shape, device=states.device)
        for row, chunk in enumerate(chunks):
            weights[row, 1 : 1 + len(chunk)] = torch.tensor(chunk.weights, device=states.device)
        if (weights != 1).any():
            states = self._weighted(states, weights)
        extras = {} if encoded.pooled is None else {"text_embeds": encoded.pooled.float()}
        return Conditioning(states.flatten(0, 1), extras)

    def _padded(self, tokens: list[int]) -> list[int]:
        encoder = self._encoder
        padding = [encoder.pad_token] * (encoder.chunk_tokens - len(tokens))
        return [encoder.start_token, *tokens, encoder.end_token, *padding]

    def _weighted(self, states: Tensor, weights: Tensor) -> Tensor:
        weighted = states * weights.unsqueeze(-1)
        if not self._encoder.keeps_mean:
            return weighted
        mean = states.mean(dim=(1, 2), keepdim=True)
        weighted_mean = weighted.mean(dim=(1, 2), keepdim=True)
        return weighted * (mean / weighted_mean)
