"""Wrappers around a sampler's ask: what one question about a picture becomes for the network."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sfumato.core.requests import NO_SKIPS, GuidanceSkips
from sfumato.engine.conditioning import Conditioning
from sfumato.engine.sampling.steps import Estimates, EstimateSteps, Steps

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


def guided(
    steps: Steps | EstimateSteps,
    network: Network,
    positive: Conditioning,
    negative: Conditioning,
    scale: float,
    *,
    skips: GuidanceSkips = NO_SKIPS,
    evaluations: int = 1,
    wants_unguided: bool = False,
) -> RowSteps:
    """Answer a sampler's asks by classifier-free guidance (Ho and Salimans 2022, Eq. 6), in terms of x0.

    At scale 1, and where `skips` says so, the negative prompt has no effect and its row is saved. A sampler that
    `wants_unguided` is sent `Estimates`; where there is no negative row, both are the positive prompt's.
    """
    evaluation = 0
    try:
        x, sigma = next(steps)
        while True:
            is_skipped = skips.skip(evaluation=evaluation, evaluations=evaluations, sigma=sigma)
            if is_skipped or (scale == 1 and not wants_unguided):
                (denoised,) = yield [Row(x, sigma, positive, network)]
                away = denoised
            else:
                toward, away = yield [Row(x, sigma, positive, network), Row(x, sigma, negative, network)]
                denoised = away + (toward - away) * scale
            answer: Any = Estimates(denoised, away) if wants_unguided else denoised
            x, sigma = steps.send(answer)
            evaluation += 1
    except StopIteration as stop:
        result: Tensor = stop.value
        return result
