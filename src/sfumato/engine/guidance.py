"""Wrappers around a sampler's ask: what one question about a picture becomes for the network."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sfumato.core.requests import NO_SKIPS, GuidanceSkips
from sfumato.engine.conditioning import Conditioning
from sfumato.engine.prompt.schedule import Course
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


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What a run is drawn to and away from at each call: weighted prompts that AND composes, and a negative one."""

    positive: tuple[tuple[Course[Conditioning], float], ...]
    negative: Course[Conditioning]

    def map(
        self, positive: Callable[[Conditioning], Conditioning], negative: Callable[[Conditioning], Conditioning]
    ) -> "Guide":
        """Return the guide of what becomes of each prompt."""
        return Guide(
            positive=tuple((course.map(positive), weight) for course, weight in self.positive),
            negative=self.negative.map(negative),
        )

    @classmethod
    def constant(cls, positive: Conditioning, negative: Conditioning) -> "Guide":
        """Return the guide of two prompts that never change."""
        return cls(positive=((Course.constant(positive), 1.0),), negative=Course.constant(negative))


@dataclass(frozen=True, kw_only=True)
class Successor:
    """Another network, told the prompts in its own way, that answers from some noise level on.

    Podell et al. 2023 ("SDXL"), Sec. 2.5: a refiner. Once it has taken over it answers to the end.
    """

    network: Network
    guide: Guide
    scale: float
    takes_over: Callable[[float], bool]


RowSteps = Generator[list[Row] | Errand, list[Tensor], Tensor]
"""A picture on its way: it asks for rows and is sent each row's denoised latents, in order, or for an errand and is
sent its result alone."""


def guided(
    steps: Steps | EstimateSteps,
    network: Network,
    guide: Guide,
    scale: float,
    *,
    skips: GuidanceSkips = NO_SKIPS,
    evaluations: int = 1,
    wants_unguided: bool = False,
    successor: Successor | None = None,
) -> RowSteps:
    """Answer a sampler's asks by classifier-free guidance (Ho and Salimans 2022, Eq. 6), in terms of x0.

    Several prompts are composed by the sum of their directions (Liu et al. 2022, Eq. 11), each with its weight. Where
    the negative prompt has no share in the sum, as at scale 1, and where `skips` says so, its row is saved. A sampler
    that `wants_unguided` is sent `Estimates`; where there is no negative row, the second is the first prompt's.
    """
    evaluation = 0
    try:
        x, sigma = next(steps)
        while True:
            if successor is not None and successor.takes_over(sigma):
                network, guide, scale, successor = successor.network, successor.guide, successor.scale, None
            weights = [weight for _, weight in guide.positive]
            strengths = [weight * scale for weight in weights]
            has_share = wants_unguided or sum(strengths) != 1
            is_skipped = skips.skip(evaluation=evaluation, evaluations=evaluations, sigma=sigma)
            told = [course.at(evaluation) for course, _ in guide.positive]
            if has_share and not is_skipped:
                told.append(guide.negative.at(evaluation))
            answers = yield [Row(x, sigma, conditioning, network) for conditioning in told]
            away = answers[0] if len(answers) == len(weights) else answers[-1]
            denoised = _composed(away, answers, weights if is_skipped else strengths)
            answer: Any = Estimates(denoised, away) if wants_unguided else denoised
            x, sigma = steps.send(answer)
            evaluation += 1
    except StopIteration as stop:
        result: Tensor = stop.value
        return result


def _composed(away: Tensor, toward: Sequence[Tensor], strengths: Sequence[float]) -> Tensor:
    """Go from one estimate in the direction of others; there may be more of these than strengths."""
    return sum(((each - away) * strength for each, strength in zip(toward, strengths, strict=False)), away)
