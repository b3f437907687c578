"""Samplers that look twice in a step and keep no history: Heun, DPM-Solver-2, DPM-Solver++(2S), Restart."""

import math
from itertools import pairwise

from torch import Tensor

from sfumato.core.requests import SamplerOptions
from sfumato.engine.sampling.schedules import karras_sigmas
from sfumato.engine.sampling.steps import (
    Noise,
    Steps,
    ancestral_eta,
    ancestral_split,
    churned,
    exponential_step,
    midpoint,
)


def _heun_step(x: Tensor, sigma: float, sigma_next: float) -> Steps:
    """Step by the trapezoid rule (Karras et al. 2022, Alg. 2, lines 7 to 11); a step to sigma 0 is Euler's."""
    denoised = yield x, sigma
    slope = (x - denoised) / sigma
    proposal: Tensor = x + slope * (sigma_next - sigma)
    if sigma_next == 0:
        return proposal
    denoised = yield proposal, sigma_next
    slope_next = (proposal - denoised) / sigma_next
    return x + (slope + slope_next) * ((sigma_next - sigma) / 2)


def sample_heun(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """Heun's second-order method (Karras et al. 2022, Alg. 2)."""
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma_hat = churned(x, sigma, len(sigmas) - 1, options, noise)
        x = yield from _heun_step(x, sigma_hat, sigma_next)
    return x


def _dpm_2_step(x: Tensor, sigma: float, sigma_next: float) -> Steps:
    """Step along the slope halfway in log sigma (Lu et al. 2022a, Alg. 1, and Karras et al. 2022, App. D.2)."""
    denoised = yield x, sigma
    slope = (x - denoised) / sigma
    if sigma_next == 0:
        return denoised
    middle = midpoint(sigma, sigma_next)
    halfway = x + slope * (middle - sigma)
    denoised = yield halfway, middle
    return x + (halfway - denoised) * ((sigma_next - sigma) / middle)


def sample_dpm_2(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """DPM-Solver-2's midpoint step in sigma, with churn (Lu et al. 2022a, Alg. 1)."""
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma_hat = churned(x, sigma, len(sigmas) - 1, options, noise)
        x = yield from _dpm_2_step(x, sigma_hat, sigma_next)
    return x


def sample_dpm_2_ancestral(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """The same to `sigma_down`, and fresh noise back up (Song et al. 2021, Eq. 16)."""
    eta = ancestral_eta(options)
    for sigma, sigma_next in pairwise(sigmas):
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next, eta)
        x = yield from _dpm_2_step(x, sigma, sigma_down)
        if sigma_up > 0:
            x = x + noise() * (options.noise_scale * sigma_up)
    return x


def _dpmpp_2s_step(x: Tensor, sigma: float, sigma_next: float) -> Steps:
    """Step of DPM-Solver++(2S) (Lu et al. 2022b, Alg. 1) with r = 1/2: the data prediction of halfway serves all."""
    denoised = yield x, sigma
    if sigma_next == 0:
        return denoised
    middle = midpoint(sigma, sigma_next)
    halfway = exponential_step(x, denoised, middle / sigma)
    denoised = yield halfway, middle
    return exponential_step(x, denoised, sigma_next / sigma)


def sample_dpmpp_2s(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """DPM-Solver++(2S) (Lu et al. 2022b, Alg. 1)."""
    for sigma, sigma_next in pairwise(sigmas):
        x = yield from _dpmpp_2s_step(x, sigma, sigma_next)
    return x


def sample_dpmpp_2s_ancestral(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """DPM-Solver++(2S) to `sigma_down`, and fresh noise back up (Song et al. 2021, Eq. 16)."""
    eta = ancestral_eta(options)
    for sigma, sigma_next in pairwise(sigmas):
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next, eta)
        x = yield from _dpmpp_2s_step(x, sigma, sigma_down)
        if sigma_up > 0:
            x = x + noise() * (options.noise_scale * sigma_up)
    return x


RESTART_LOW, RESTART_HIGH = 0.1, 2.0
"""Between which noise levels Restart goes to and fro."""


def restart_pairs(sigmas: list[float]) -> list[tuple[float, float]]:
    """Return the steps of Restart for a schedule, the repeated ones in their place.

    From 20 steps on, 9 of them make one repeated stretch, and from 36 on half of them two; the others are spread by
    Karras' formula over the schedule's range, as AUTOMATIC1111 does it. Shorter schedules are run as they are.
    """
    steps = len(sigmas) - 1
    if steps < 20:
        return list(pairwise(sigmas))
    count, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    lowest = sigmas[-2] if sigmas[-1] == 0 else sigmas[-1]
    main = [*karras_sigmas(steps - count * times, lowest, sigmas[0], 7.0).tolist(), 0.0]
    low = min(range(len(main)), key=lambda i: abs(main[i] - RESTART_LOW))
    high = min(range(len(main)), key=lambda i: abs(main[i] - RESTART_HIGH))
    pairs = list(pairwise(main))
    if not high < low < len(main) - 1:
        return pairs
    # One level more than steps: the lowest belongs to the main schedule, where the stretch ends.
    stretch = karras_sigmas(count + 1, main[low], main[high], 7.0).tolist()
    return pairs[:low] + list(pairwise(stretch)) * times + pairs[low:]


def sample_restart(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """Restart (Xu et al. 2023, Alg. 1): Heun steps that jump back up with fresh noise and come down again."""
    reached = sigmas[0]
    for sigma, sigma_next in restart_pairs(sigmas):
        if sigma > reached:
            x = x + noise() * math.sqrt(sigma**2 - reached**2)
        x = yield from _heun_step(x, sigma, sigma_next)
        reached = sigma_next
    return x
