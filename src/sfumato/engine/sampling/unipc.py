"""UniPC: a multistep predictor and a corrector that reuses the predictor's evaluation, of any order."""

import math
from itertools import pairwise

import numpy as np
from torch import Tensor

from sfumato.core.requests import SamplerOptions, UniPCVariant
from sfumato.engine.sampling.ddim import variance_preserving
from sfumato.engine.sampling.multistep import weighted
from sfumato.engine.sampling.steps import Noise, Steps, exponential_step


def _weights(ratios: list[float], h: float, variant: UniPCVariant) -> list[float]:
    """Return what multiplies the differences D_m / r_m (Zhao et al. 2023, Eq. 5 and Thm. 3.1), B(h) included.

    `ratios` are r_m, distances in log-SNR from the newest point over the step h. Data prediction: the signs are those
    of Alg. 7 and 8 there.
    """
    order = len(ratios)
    scale = -h if variant is UniPCVariant.BH1 else math.expm1(-h)
    phi, factorial, right = math.expm1(-h) / -h - 1, 1, []
    for k in range(1, order + 1):
        right.append(phi * factorial / scale)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    matrix = np.vander(ratios, order, increasing=True).T
    # The paper's own choice for two points, where B(h) differs from the solution of the system.
    solution = np.array([0.5]) if order == 1 else np.linalg.solve(matrix, np.array(right))
    return [float(-scale * weight) for weight in solution]


def sample_unipc(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """UniPC-p (Zhao et al. 2023, Alg. 5 and 6: multistep, data prediction), p = 3 unless asked otherwise.

    The corrector of a step waits for the evaluation that the next step needs anyway, so there is one a step and none
    for the last, which goes uncorrected.
    """
    settings, count = options.unipc, len(sigmas) - 1
    lambdas = [-math.log(sigma) if sigma > 0 else math.inf for sigma in sigmas]
    history = [(yield x, sigmas[0])]
    for number, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        order = min(settings.order, number + 1)
        if settings.lowers_order_at_end:
            order = min(order, count - number)
        if sigma_next == 0:
            return history[0]
        h = lambdas[number + 1] - lambdas[number]
        ratios = [(lambdas[number - m] - lambdas[number]) / h for m in range(1, order)]
        differences = [(history[m] - history[0]) / r for m, r in enumerate(ratios, start=1)]
        base = exponential_step(x, history[0], sigma_next / sigma)
        predicted = base
        if differences:
            predicted = base + weighted(differences, _weights(ratios, h, settings.variant))
        if number == count - 1:
            x = predicted
            break
        denoised = yield predicted, sigma_next
        corrections = [*differences, denoised - history[0]]
        x = base + weighted(corrections, _weights([*ratios, 1.0], h, settings.variant))
        history = [denoised, *history][: settings.order]
    return variance_preserving(x, sigmas[-1])
