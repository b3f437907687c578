"""Wrappers around a sampler's ask: what one question about a picture becomes for the network."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sfumato.core.requests import NO_SKIPS, GuidanceSkips
from sfumato.engine.sampling.steps import Estimates, EstimateSteps, Steps


@dataclass(frozen=True)
class Row:
    """One row of a forward pass: noisy latents (C, h, w) at a noise level, under a conditioning (L, D)."""

    x: Tensor
    sigma: float
    context: Tensor


RowSteps = Generator[list[Row], list[Tensor], Tensor]
"""A sampler whose asks are rows; it is sent each row's denoised latents, in order."""


def guided(
    steps: Steps | EstimateSteps,
    positive: Tensor,
    negative: Tensor,
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
                (denoised,) = yield [Row(x, sigma, positive)]
                away = denoised
            else:
                toward, away = yield [Row(x, sigma, positive), Row(x, sigma, negative)]
                denoised = away + (toward - away) * scale
            answer: Any = Estimates(denoised, away) if wants_unguided else denoised
            x, sigma = steps.send(answer)
            evaluation += 1
    except StopIteration as stop:
        result: Tensor = stop.value
        return result
