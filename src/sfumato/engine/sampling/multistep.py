"""Samplers of one evaluation a step that remember earlier ones: Adams-Bashforth and exponential multistep rules."""

import math
from itertools import pairwise

import numpy as np
from torch import Tensor

from sfumato.core.requests import SamplerOptions
from sfumato.engine.sampling.steps import Noise, Steps, exponential_step

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the newest slope and those before it, for 1 to 4 of them at even distances (Liu et al. 2022, Eq. 12)."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_GREATEST_ORDER = 4
_DEIS_ORDER = 3


def adams_bashforth(slopes: list[Tensor]) -> Tensor:
    """Return the slope that 1 to 4 slopes at even distances, the newest first, give for the next step."""
    return weighted(slopes, list(ADAMS_BASHFORTH[len(slopes) - 1]))


def weighted(tensors: list[Tensor], weights: list[float]) -> Tensor:
    """Return the weighted sum of tensors."""
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total = total + tensor * weight
    return total


def _lagrange(knots: list[float], number: int, at: np.ndarray) -> np.ndarray:
    """Return the Lagrange polynomial that is 1 at knot `number` and 0 at the others."""
    others = [knot for place, knot in enumerate(knots) if place != number]
    value = np.ones_like(at)
    for other in others:
        value = value * (at - other) / (knots[number] - other)
    return value


def adams_weights(knots: list[float], start: float, end: float) -> list[float]:
    """Return integrals over sigma, from start to end, of the Lagrange polynomials in sigma through `knots`."""
    at = (end - start) / 2 * _NODES + (end + start) / 2
    return [float((end - start) / 2 * (_WEIGHTS @ _lagrange(knots, j, at))) for j in range(len(knots))]


def log_adams_weights(knots: list[float], start: float, end: float) -> list[float]:
    """Return integrals over sigma, from start to end, of the Lagrange polynomials in log sigma through `knots`."""
    low, high = math.log(start), math.log(end)
    at = (high - low) / 2 * _NODES + (high + low) / 2
    measure = (high - low) / 2 * _WEIGHTS * np.exp(at)  # d sigma = sigma d log sigma
    logs = [math.log(knot) for knot in knots]
    return [float(measure @ _lagrange(logs, j, at)) for j in range(len(logs))]


def sample_lms(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """Linear multistep: Adams-Bashforth of order 4 on uneven steps (Hairer et al. 1993, Sec. III.5, Eq. 5.2)."""
    slopes: list[Tensor] = []
    for number, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield x, sigma
        slopes = [(x - denoised) / sigma, *slopes][:_GREATEST_ORDER]
        knots = sigmas[number::-1][: len(slopes)]
        x = x + weighted(slopes, adams_weights(knots, sigma, sigma_next))
    return x


def sample_ipndm(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """IPNDM (Zhang and Chen 2023, App. C): PNDM's order-4 rule for even steps (Liu et al. 2022, Eq. 12) at any."""
    slopes: list[Tensor] = []
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        slopes = [(x - denoised) / sigma, *slopes][:_GREATEST_ORDER]
        x = x + adams_bashforth(slopes) * (sigma_next - sigma)
    return x


def sample_deis(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """DEIS in its form log-rho-AB3 (Zhang and Chen 2023, Eq. 15): noise estimates are polynomials in log sigma."""
    slopes: list[Tensor] = []
    for number, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield x, sigma
        if sigma_next == 0:
            return denoised
        slopes = [(x - denoised) / sigma, *slopes][:_DEIS_ORDER]
        knots = sigmas[number::-1][: len(slopes)]
        x = x + weighted(slopes, log_adams_weights(knots, sigma, sigma_next))
    return x


def sample_dpmpp_2m(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """DPM-Solver++(2M) (Lu et al. 2022b, Alg. 2), in lambda = -log sigma; first and last steps are first order.

    In variance-exploding coordinates alpha is 1, so sigma_t / sigma_s = exp(-h) multiplies x, and the data
    prediction extrapolated from the last two is weighted by 1 - exp(-h).
    """
    previous: Tensor | None = None
    previous_ratio = 1.0  # sigma / sigma before it
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        ratio = sigma_next / sigma
        estimate = denoised
        if previous is not None and sigma_next > 0:
            weight = math.log(ratio) / (2 * math.log(previous_ratio))  # 1 / (2 r), r = h_previous / h
            estimate = denoised + (denoised - previous) * weight
        x = exponential_step(x, estimate, ratio)
        previous, previous_ratio = denoised, ratio
    return x


def sample_res_multistep(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """RES, multistep of order 2 (Zhang et al. 2023, Alg. 2): exponential Adams-Bashforth on the data prediction.

    With h = log(sigma / sigma_next) and phi_k as there (Eq. 8), the last two estimates are weighted by
    h (phi_1 + phi_2 / r) and -h phi_2 / r at -h, where r = h_previous / h.
    """
    previous: Tensor | None = None
    previous_h = 1.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        if sigma_next == 0:
            return denoised
        h = math.log(sigma / sigma_next)
        x = exponential_step(x, denoised, sigma_next / sigma)
        if previous is not None:
            phi_2 = (math.expm1(-h) + h) / h**2
            x = x + (denoised - previous) * (h * phi_2 * h / previous_h)
        previous, previous_h = denoised, h
    return x
