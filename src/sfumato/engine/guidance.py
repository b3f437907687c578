"""Wrappers around a sampler's ask: what one question about a picture becomes for the network."""

from collections.abc import Callable, Generator
from dataclasses import dataclass

from torch import Tensor

from sfumato.engine.conditioning import Conditioning
from sfumato.engine.sampling.samplers import Steps

Denoise = Callable[[Tensor, Tensor, Conditioning], Tensor]
"""A model's network as `families.base.Denoiser.denoise`: (B, C, h, w), (B,), B conditionings -> (B, C, h, w)."""


@dataclass(frozen=True)
class Network:
    """What answers rows; rows whose networks have one name may share a forward pass."""

    name: str
    denoise: Denoise


@dataclass(frozen=True)
class Row:
    """One row of a forward pass: noisy latents (C, h, w) at a noise level, under a conditioning, for a network."""

    x: Tensor
    sigma: float
    conditioning: Conditioning
    network: Network


@dataclass(frozen=True)
class Errand:
    """Work between two passes of a picture that would hold up the loop, such as running the autoencoder.

    It is run elsewhere; what it returns is sent to the picture, which then goes on.
    """

    run: Callable[[], Tensor]


RowSteps = Generator[list[Row] | Errand, list[Tensor], Tensor]
"""A picture on its way: it asks for rows and is sent each row's denoised latents, in order, or for an errand and is
sent its result alone."""


def guided(steps: Steps, network: Network, positive: Conditioning, negative: Conditioning, scale: float) -> RowSteps:
    """Answer a sampler's asks by classifier-free guidance (Ho and Salimans 2022, Eq. 6), in terms of x0.

    At scale 1 the negative prompt has no effect and its row is saved.
    """
    try:
        x, sigma = next(steps)
        while True:
            if scale == 1:
                (denoised,) = yield [Row(x, sigma, positive, network)]
            else:
                toward, away = yield [Row(x, sigma, positive, network), Row(x, sigma, negative, network)]
                denoised = away + (toward - away) * scale
            x, sigma = steps.send(denoised)
    except StopIteration as stop:
        result: Tensor = stop.value
        return result
