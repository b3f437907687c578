"""Wrappers around a sampler's ask: what one question about a picture becomes for the network."""

from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor

from sfumato.engine.conditioning import Conditioning
from sfumato.engine.sampling.samplers import Steps


@dataclass(frozen=True)
class Row:
    """One row of a forward pass: noisy latents (C, h, w) at a noise level, under a conditioning."""

    x: Tensor
    sigma: float
    conditioning: Conditioning


RowSteps = Generator[list[Row], list[Tensor], Tensor]
"""A sampler whose asks are rows; it is sent each row's denoised latents, in order."""


def guided(steps: Steps, positive: Conditioning, negative: Conditioning, scale: float) -> RowSteps:
    """Answer a sampler's asks by classifier-free guidance (Ho and Salimans 2022, Eq. 6), in terms of x0.

    At scale 1 the negative prompt has no effect and its row is saved.
    """
    try:
        x, sigma = next(steps)
        while True:
            if scale == 1:
                (denoised,) = yield [Row(x, sigma, positive)]
            else:
                toward, away = yield [Row(x, sigma, positive), Row(x, sigma, negative)]
                denoised = away + (toward - away) * scale
            x, sigma = steps.send(denoised)
    except StopIteration as stop:
        result: Tensor = stop.value
        return result
