"""The DDIM family: rules written for integer timesteps and variance-preserving coordinates, here in ours.

In variance-exploding coordinates DDIM's step is Euler's. The family's own levels (`schedules.ddim_timesteps`) end not
at 0 but at a low training timestep's, and latents are handed back in the variance-preserving coordinates there,
x / sqrt(1 + sigma^2), as the original implementations leave them. At sigma 0 the two coordinates agree.
"""

from itertools import pairwise

from torch import Tensor

from sfumato.core.requests import SamplerOptions
from sfumato.engine.sampling.multistep import adams_bashforth
from sfumato.engine.sampling.steps import EstimateSteps, Noise, Steps, ancestral_split


def variance_preserving(x: Tensor, sigma: float) -> Tensor:
    """Return latents at a noise level in variance-preserving coordinates."""
    scaled: Tensor = x / (1 + sigma**2) ** 0.5
    return scaled


def _ddim(x: Tensor, sigmas: list[float], eta: float, noise: Noise) -> Steps:
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next, eta)
        x = denoised + (x - denoised) * (sigma_down / sigma)
        if sigma_up > 0:
            x = x + noise() * sigma_up
    return variance_preserving(x, sigmas[-1])


def sample_ddim(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """DDIM (Song et al. 2021, Eq. 12, sigma from Eq. 16), eta 0 unless asked."""
    return _ddim(x, sigmas, options.eta or 0.0, noise)


def sample_ddpm(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """DDPM over few steps (Ho et al. 2020, Eq. 7, as Song et al. 2021, Sec. 4.1, find it: DDIM at eta 1)."""
    return _ddim(x, sigmas, 1.0, noise)


def sample_ddim_cfgpp(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> EstimateSteps:
    """DDIM CFG++ (Chung et al. 2024, Alg. 2): the guided estimate, renoised in the unguided direction."""
    for sigma, sigma_next in pairwise(sigmas):
        guided, unguided = yield x, sigma
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next, options.eta or 0.0)
        x = guided + (x - unguided) * (sigma_down / sigma)
        if sigma_up > 0:
            x = x + noise() * sigma_up
    return variance_preserving(x, sigmas[-1])


def sample_plms(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """PLMS (Liu et al. 2022, Alg. 2): DDIM steps along a linear multistep mean of the noise estimates, Eq. 12.

    The first step is Heun's, the next two of lower order while there is no history, as in latent diffusion.
    """
    slopes: list[Tensor] = []
    for number, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield x, sigma
        slopes = [(x - denoised) / sigma, *slopes][:4]
        slope = adams_bashforth(slopes)
        if number == 0 and sigma_next > 0:
            ahead = x + slope * (sigma_next - sigma)
            denoised = yield ahead, sigma_next
            slope = (slope + (ahead - denoised) / sigma_next) / 2
        x = x + slope * (sigma_next - sigma)
    return variance_preserving(x, sigmas[-1])
