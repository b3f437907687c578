"""What a network is told of the picture itself, besides the prompt: its size, and channels beside the latents."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.engine.conditioning import CHANNELS, TIME_IDS, Conditioning

_CROP = (0.0, 0.0)
_FINE_PICTURE, _POOR_PICTURE = 6.0, 2.5
"""Aesthetic scores that the refiner is told for the prompt and for the negative prompt."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A picture's size in pixels, and what a family's network takes of it.

    `time_ids`: how many numbers it takes: 0, 6 (Stable Diffusion XL: Podell et al. 2023, Sec. 2.2), or 5 (its
    refiner). `channels` (C', h, w) go beside the latents.
    """

    width: int
    height: int
    time_ids: int = 0
    channels: Tensor | None = None

    def conditioned(self, prompt: Conditioning, *, negative_prompt: str | None = None) -> Conditioning:
        """Return a prompt's conditioning with the picture's beside it; `negative_prompt` is None for the prompt.

        Families that take sizes were trained with nothing at all, zeros, in place of an empty negative prompt.
        """
        states, extras = prompt.states, dict(prompt.extras)
        if self.time_ids:
            if negative_prompt == "":
                states = torch.zeros_like(states)
                extras |= {name: torch.zeros_like(tensor) for name, tensor in extras.items()}
            extras[TIME_IDS] = self._size(is_negative=negative_prompt is not None)
        if self.channels is not None:
            extras[CHANNELS] = self.channels
        return Conditioning(states, extras)

    def _size(self, *, is_negative: bool) -> Tensor:
        size = (float(self.height), float(self.width))
        last = size if self.time_ids > 5 else (_POOR_PICTURE if is_negative else _FINE_PICTURE,)
        return torch.tensor((*size, *_CROP, *last))
