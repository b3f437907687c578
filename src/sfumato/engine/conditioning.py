"""What a network is told besides noisy latents and a noise level."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

TEXT_EMBEDS, TIME_IDS, CHANNELS, GUIDANCE = "text_embeds", "time_ids", "channels", "guidance"
"""Extras: XL's summary of a prompt (P,) and the picture's size (6,); what goes beside the latents (C, h, w); the
guidance scale as networks take it that were distilled with it (W,)."""


@dataclass(frozen=True)
class Conditioning:
    """What rows are denoised towards: a prompt's states (L, D), and further inputs of the family by name.

    Stacked, every tensor has a row's place in front: states (B, L, D).
    """

    states: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def signature(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """What two conditionings must have in common to share a forward pass."""
        extras = ((name, tuple(self.extras[name].shape)) for name in sorted(self.extras))
        return (("states", tuple(self.states.shape)), *extras)

    @classmethod
    def stack(cls, rows: Sequence["Conditioning"]) -> "Conditioning":
        """Put conditionings of one signature together, in order."""
        names = rows[0].extras
        return cls(
            torch.stack([row.states for row in rows]),
            {name: torch.stack([row.extras[name] for row in rows]) for name in names},
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> "Conditioning":
        """Return this conditioning on a device, in the network's precision."""
        extras = {name: tensor.to(device, dtype) for name, tensor in self.extras.items()}
        return Conditioning(self.states.to(device, dtype), extras)
