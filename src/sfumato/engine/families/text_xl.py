"""Stable Diffusion XL's text encoder: two towers and a prompt's summary (Podell et al. 2023, Sec. 2.1)."""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from sfumato.engine.families.text import OPEN_CLIP_PAD, ClipText, injected
from sfumato.engine.prompt.encode import Injection, TextStates


class XlText(ClipText):
    """OpenAI's CLIP and OpenCLIP's bigG, or bigG alone as in the refiner; their states before the last layer.

    Both read the same tokens; the first pads with EOS, the second with "!".
    """

    def __init__(self, first: Any | None, second: Any, tokenizer: Tokenizer) -> None:
        super().__init__(second, tokenizer)
        self.pad_token = self.end_token
        self._first = first
        self.networks = (second,) if first is None else (first, second)
        self.embedding_widths = tuple(int(network.config.hidden_size) for network in self.networks)

    def encode(self, tokens: Tensor, skip_layers: int = 0, injections: Sequence[Injection] = ()) -> TextStates:
        """Return both towers' states side by side, and the first chunk's summary.

        The layers are part of the family: `skip_layers` has no effect, as in AUTOMATIC1111.
        """
        tokens = tokens.to(self.network.device)
        with injected(self.network.get_input_embeddings(), injections):
            output = self.network.text_model(input_ids=self._padded_for_second(tokens), output_hidden_states=True)
        states = [output.hidden_states[-2]]
        if self._first is not None:
            with injected(self._first.get_input_embeddings(), injections):
                states.insert(0, self._first(input_ids=tokens, output_hidden_states=True).hidden_states[-2])
        first_end = int((tokens[0] == self.end_token).int().argmax())
        pooled = self.network.text_projection(output.last_hidden_state[0, first_end])
        return TextStates(torch.cat(states, dim=-1), pooled)

    def _padded_for_second(self, tokens: Tensor) -> Tensor:
        ends = tokens == self.end_token
        return tokens.masked_fill(ends & (ends.cumsum(dim=-1) > 1), OPEN_CLIP_PAD)
