"""DPM-Solver of orders 1 to 3 on the noise prediction: with a given number of evaluations, and with adaptive steps.

Lu et al. 2022a, in t = -log sigma, where alpha is 1; a step from s to t has h = t - s. Each wants noise levels only for
their range: the greatest, and the least above 0, where they end.
"""

import math
from collections.abc import Generator
from itertools import pairwise

import torch
from torch import Tensor

from sfumato.core.errors import GenerationFailed
from sfumato.core.requests import SamplerOptions
from sfumato.engine.sampling.steps import Noise, Steps, ancestral_eta, ancestral_split

Stages = Generator[tuple[Tensor, float], Tensor, tuple[Tensor, Tensor]]
"""A step in stages: returns the solution of its order, and one of the order below."""

MAX_ATTEMPTS = 2000


def time_range(sigmas: list[float]) -> tuple[float, float]:
    """Return t of the greatest sigma and of the least above 0."""
    above_zero = [sigma for sigma in sigmas if sigma > 0]
    return -math.log(max(above_zero)), -math.log(min(above_zero))


def _slope(x: Tensor, t: float) -> Steps:
    denoised = yield x, math.exp(-t)
    return (x - denoised) * math.exp(t)


def solver_step(x: Tensor, s: float, t: float, order: int, slope: Tensor) -> Stages:
    """Step from s to t with DPM-Solver-1, -2 (r1 = 1/2) or -3 (r1 = 1/3, r2 = 2/3).

    Lu et al. 2022a, Eq. 3.7, Alg. 1 and 2. The lower solution of order 3 is DPM-Solver-2 with r1 = 1/3, whose stages
    it shares (App. C).
    """
    h, sigma = t - s, math.exp(-t)
    first = x - slope * (sigma * math.expm1(h))
    if order == 1:
        return first, first
    r1 = 1 / 2 if order == 2 else 1 / 3
    u1 = x - slope * (math.exp(-s - r1 * h) * math.expm1(r1 * h))
    change = (yield from _slope(u1, s + r1 * h)) - slope
    second = first - change * (sigma * math.expm1(h) / (2 * r1))
    if order == 2:
        return second, first
    r2 = 2 / 3
    scale = math.exp(-s - r2 * h)
    u2 = x - slope * (scale * math.expm1(r2 * h))
    u2 = u2 - change * (scale * r2 / r1 * (math.expm1(r2 * h) / (r2 * h) - 1))
    change = (yield from _slope(u2, s + r2 * h)) - slope
    third = first - change * (sigma / r2 * (math.expm1(h) / h - 1))
    return third, second


def fast_orders(evaluations: int) -> list[int]:
    """Return the orders of DPM-Solver-fast's steps, which sum to `evaluations` (Lu et al. 2022a, Sec. 3.4)."""
    count = evaluations // 3
    if evaluations % 3 == 0:
        return [3] * (count - 1) + [2, 1]
    return [3] * count + [evaluations % 3]


def _target(s: float, t: float, end: float, eta: float) -> tuple[float, float]:
    """Return where a step towards t goes before noise, and the deviation of that noise."""
    down, up = ancestral_split(math.exp(-s), math.exp(-t), eta)
    if up == 0:
        return t, 0.0
    target = min(end, -math.log(down)) if down > 0 else end
    return target, math.sqrt(max(math.exp(-2 * t) - math.exp(-2 * target), 0.0))


def sample_dpm_fast(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """DPM-Solver-fast (Lu et al. 2022a, Sec. 3.4): as many evaluations as steps, mostly of order 3."""
    start, end = time_range(sigmas)
    orders = fast_orders(len(sigmas) - 1)
    times = torch.linspace(start, end, len(orders) + 1, dtype=torch.float64).tolist()
    for order, (s, t) in zip(orders, pairwise(times), strict=True):
        target, up = _target(s, t, end, ancestral_eta(options))
        slope = yield from _slope(x, s)
        x, _ = yield from solver_step(x, s, target, order, slope)
        if up > 0:
            x = x + noise() * (options.noise_scale * up)
    return x


def sample_dpm_adaptive(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """DPM-Solver-23 with adaptive steps (Lu et al. 2022a, App. C): it alone decides how many evaluations it takes.

    A step is kept when orders 2 and 3 agree, and the next is as long as that error allows; the step-size rule is an
    integral controller with a limiter (Soederlind 2003, Eq. 28 and 36).
    """
    relative, absolute, safety = 0.05, 0.0078, 0.81
    eta, h = ancestral_eta(options), 0.05
    order = 1.5 if eta > 0 else 3.0  # of the error, which noise makes fall more slowly
    s, end = time_range(sigmas)
    previous, slope = x, None
    for _ in range(MAX_ATTEMPTS):
        if s >= end - 1e-5:
            return x
        t = min(end, s + h)
        target, up = _target(s, t, end, eta)
        slope = (yield from _slope(x, s)) if slope is None else slope
        high, low = yield from solver_step(x, s, target, 3, slope)
        tolerance = torch.maximum(low.abs(), previous.abs()).mul(relative).clamp(min=absolute)
        error = float(((low - high) / tolerance).square().mean().sqrt())
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / order) - 1)
        if factor >= safety:
            previous, slope, s = low, None, t
            x = high + noise() * up if up > 0 else high
        h *= factor
    raise GenerationFailed("DPM adaptive found no step short enough.", hint="Use another sampler.")
