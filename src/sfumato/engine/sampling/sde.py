"""Samplers of the reverse diffusion SDE: fresh noise is part of the equation, not added between steps."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from torch import Tensor

from sfumato.core.requests import SamplerOptions
from sfumato.engine.sampling.steps import (
    Noise,
    Steps,
    ancestral_eta,
    ancestral_split,
    exponential_step,
    midpoint,
)


def sample_dpmpp_sde(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """SDE-DPM-Solver++(2S): Lu et al. 2022b, Alg. 1, r = 1/2, each of its steps split as Song et al. 2021, Eq. 16.

    The noise of the halfway point and of the whole step are increments of one Brownian motion.
    """
    eta, brownian = ancestral_eta(options), noise.brownian(sigmas)
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        if sigma_next == 0:
            return denoised
        middle = midpoint(sigma, sigma_next)
        down, up = ancestral_split(sigma, middle, eta)
        halfway = exponential_step(x, denoised, down / sigma)
        halfway = halfway + brownian(sigma, middle) * (options.noise_scale * up)
        denoised = yield halfway, middle
        down, up = ancestral_split(sigma, sigma_next, eta)
        x = exponential_step(x, denoised, down / sigma)
        x = x + brownian(sigma, sigma_next) * (options.noise_scale * up)
    return x


def _half_weight(h: float) -> float:
    """Return (1 - exp(-h)) / 2: the midpoint form of a second-order term (Lu et al. 2022b, Eq. 18)."""
    return -math.expm1(-h) / 2


def _heun_weight(h: float) -> float:
    """Return the exact integral of a linear term, 1 - (1 - exp(-h)) / h (Lu et al. 2022b, Eq. 17, n = 1)."""
    return 1 + math.expm1(-h) / h


def _dpmpp_2m_sde(
    x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise, weight: Callable[[float], float]
) -> Steps:
    eta, brownian = ancestral_eta(options), noise.brownian(sigmas)
    previous: Tensor | None = None
    previous_h = 1.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        if sigma_next == 0:
            return denoised
        h = math.log(sigma / sigma_next)
        x = exponential_step(x, denoised, math.exp(-h * (1 + eta)))
        if previous is not None:
            x = x + (denoised - previous) * (weight(h * (1 + eta)) * h / previous_h)
        if eta > 0:
            x = x + brownian(sigma, sigma_next) * _noise_deviation(sigma_next, h, eta, options)
        previous, previous_h = denoised, h
    return x


def sample_dpmpp_2m_sde(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022b, Eq. 18 and App. D), midpoint form; eta scales the SDE's noise."""
    return _dpmpp_2m_sde(x, sigmas, options, noise, _half_weight)


def sample_dpmpp_2m_sde_heun(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """The same with the linear term integrated exactly."""
    return _dpmpp_2m_sde(x, sigmas, options, noise, _heun_weight)


def sample_dpmpp_3m_sde(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """The third-order multistep member of the family: Lu et al. 2022b, Eq. 17 with n = 2, for the SDE.

    Derivatives in log-SNR come from the last three estimates by Newton's divided differences. The weight of the second
    is that of the authors' code, half of what Taylor's theorem gives, so that the order is 2 with a small constant.
    """
    eta, brownian = ancestral_eta(options), noise.brownian(sigmas)
    history: list[Tensor] = []
    widths: list[float] = []
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        if sigma_next == 0:
            return denoised
        history = [denoised, *history][:3]
        h = math.log(sigma / sigma_next)
        x = exponential_step(x, denoised, math.exp(-h * (1 + eta))) + _taylor_terms(history, widths, h, h * (1 + eta))
        if eta > 0:
            x = x + brownian(sigma, sigma_next) * _noise_deviation(sigma_next, h, eta, options)
        widths = [h, *widths][:2]
    return x


def _taylor_terms(history: list[Tensor], widths: list[float], h: float, h_eta: float) -> Tensor | float:
    """Return the terms of first and second derivative; `widths` are the steps before, newest first, h the next."""
    if len(history) < 2:
        return 0.0
    phi_2 = _heun_weight(h_eta)
    first = (history[0] - history[1]) * (h / widths[0])
    if len(history) < 3:
        return first * phi_2
    before = (history[1] - history[2]) * (h / widths[1])
    near, far = widths[0] / h, widths[1] / h
    second = (first - before) / (near + far)
    return (first + second * near) * phi_2 - second * (phi_2 / h_eta - 0.5)


def _noise_deviation(sigma_next: float, h: float, eta: float, options: SamplerOptions) -> float:
    return options.noise_scale * sigma_next * math.sqrt(-math.expm1(-2 * h * eta))


_QUADRATURE, _WEIGHTS = np.polynomial.legendre.leggauss(32)


def _noise_scaling(sigma: float) -> float:
    """Return phi of ER-SDE (Cui et al. 2023, Sec. 4.3, the scaling found best there)."""
    return float(sigma * (math.exp(sigma**0.3) + 10))


def _over_scaling(sigma: float, sigma_next: float, phi: Callable[[float], float]) -> tuple[float, float]:
    """Return the integrals of 1 / phi(s) and (s - sigma) / phi(s) for s from `sigma_next` up to `sigma`.

    Quadrature is in log s, in which the integrands are smooth.
    """
    low, high = math.log(sigma_next), math.log(sigma)
    at = np.exp((high - low) / 2 * _QUADRATURE + (high + low) / 2)
    measure = (high - low) / 2 * _WEIGHTS * at / np.array([phi(float(s)) for s in at])
    return float(measure.sum()), float(measure @ (at - sigma))


def _er_sde(
    x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise, phi: Callable[[float], float]
) -> Steps:
    previous: list[tuple[float, Tensor, Tensor | None]] = []
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        if sigma_next == 0:
            return denoised
        first = second = None
        if previous:
            before, estimate, slope_before = previous[0]
            first = (denoised - estimate) / (sigma - before)
            if slope_before is not None:
                second = (first - slope_before) * (2 / (sigma - previous[1][0]))
        keep, step = phi(sigma_next) / phi(sigma), sigma_next - sigma
        x = exponential_step(x, denoised, keep)
        zeroth_moment, first_moment = _over_scaling(sigma, sigma_next, phi)
        if first is not None:
            x = x + first * (step + phi(sigma_next) * zeroth_moment)
        if second is not None:
            x = x + second * (step**2 / 2 + phi(sigma_next) * first_moment)
        variance = sigma_next**2 - (sigma * keep) ** 2
        if variance > 0:
            x = x + noise() * (options.noise_scale * math.sqrt(variance))
        previous = [(sigma, denoised, first), *previous][:2]
    return x


def sample_er_sde(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """ER-SDE-Solver-3, variance-exploding (Cui et al. 2023, Alg. 5): a Taylor expansion in sigma to order 3.

    x_t / phi(t) - x_s / phi(s) integrates the data prediction against d(1 / phi) exactly; the derivatives are divided
    differences of the last three predictions. With phi(sigma) = sigma it solves the probability flow ODE.
    """
    return _er_sde(x, sigmas, options, noise, _noise_scaling)
