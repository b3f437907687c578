"""What a network is told besides the prompt: the picture's size, channels beside the latents, the guidance scale."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.engine.conditioning import CHANNELS, GUIDANCE, TIME_IDS, Conditioning

_CROP = (0.0, 0.0)
_FINE_PICTURE, _POOR_PICTURE = 6.0, 2.5
"""Aesthetic scores that the refiner is told for the prompt and for the negative prompt."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A picture's size in pixels and guidance scale, and what a family's network takes of them.

    `time_ids`: how many numbers it takes: 0, 6 (Stable Diffusion XL: Podell et al. 2023, Sec. 2.2), or 5 (its
    refiner). `channels` (C', h, w) go beside the latents. `guidance_width`: of the guidance scale's embedding, for
    networks distilled with it (Luo et al. 2023, Sec. 4.2), which are then not guided in any other way; else 0.
    """

    width: int
    height: int
    time_ids: int = 0
    channels: Tensor | None = None
    guidance_scale: float = 1.0
    guidance_width: int = 0

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
        if self.guidance_width:
            extras[GUIDANCE] = _embedded(self.guidance_scale - 1, self.guidance_width)
        return Conditioning(states, extras)

    def _size(self, *, is_negative: bool) -> Tensor:
        size = (float(self.height), float(self.width))
        last = size if self.time_ids > 5 else (_POOR_PICTURE if is_negative else _FINE_PICTURE,)
        return torch.tensor((*size, *_CROP, *last))


def _embedded(value: float, width: int) -> Tensor:
    """Return sines and cosines of a value at wavelengths in geometric progression (Vaswani et al. 2017, Sec. 3.5)."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10_000.0) / (half - 1)))
    angles = 1000.0 * value * frequencies
    return torch.cat([angles.sin(), angles.cos()])
