"""Samplers of one evaluation a step that keep no history: Euler's method, with and without fresh noise."""

from itertools import pairwise

from torch import Tensor

from sfumato.core.requests import SamplerOptions
from sfumato.engine.sampling.steps import Noise, Steps, ancestral_eta, ancestral_split, churned


def sample_euler(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """Euler's method (Karras et al. 2022, Alg. 2 without the correction)."""
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma_hat = churned(x, sigma, len(sigmas) - 1, options, noise)
        denoised = yield x, sigma_hat
        x = x + (x - denoised) * ((sigma_next - sigma_hat) / sigma_hat)
    return x


def sample_euler_ancestral(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """Euler steps with fresh noise after each: the DDPM posterior at eta 1 (Song et al. 2021, Eq. 12 and 16)."""
    eta = ancestral_eta(options)
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next, eta)
        x = x + (x - denoised) * ((sigma_down - sigma) / sigma)
        if sigma_up > 0:
            x = x + noise() * sigma_up
    return x
