"""Samplers against exact solutions, their order of convergence, and diffusers' schedulers step by step."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler
from torch import Tensor

from sfumato.core.requests import NoiseSource, SamplerOptions
from sfumato.core.sampling import SAMPLERS as CATALOGUE
from sfumato.engine.sampling.noise import noise_stream
from sfumato.engine.sampling.samplers import SAMPLERS, ancestral_split
from sfumato.engine.sampling.schedules import NoiseLevels, ddim_timesteps, uniform
from tests.engine.toys import MEAN, SPREAD, gaussian_denoiser, gaussian_flow, mixture_denoiser, run, sample, silence

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers

LEVELS = NoiseLevels.scaled_linear()
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def error_at(name: str, steps: int) -> float:
    """Return the error of an ODE solver from sigma 10 to 0.05 on Gaussian data."""
    sigmas = torch.linspace(math.log(10), math.log(0.05), steps + 1, dtype=torch.float64).exp().tolist()
    x = torch.full((1, 2, 2), 12.0, dtype=torch.float64)
    exact = gaussian_flow(x, sigmas[0], sigmas[-1])
    return float((sample(name, x, sigmas, gaussian_denoiser) - exact).abs().max())


@pytest.mark.parametrize(("name", "order"), [("Euler", 1), ("Heun", 2), ("DPM++ 2M", 2)])
def test_error_shrinks_with_the_order_of_the_method(name: str, order: int) -> None:
    measured = math.log2(error_at(name, 80) / error_at(name, 160))
    assert measured == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_finds_the_mode_of_a_mixture(name: str) -> None:
    x = torch.tensor([[[3.0, -3.0], [8.0, -8.0]]], dtype=torch.float64)
    sigmas = [*torch.linspace(math.log(10), math.log(0.03), 60, dtype=torch.float64).exp().tolist(), 0.0]
    if name == "DDIM":
        sigmas.pop()
    found = sample(name, x, sigmas, mixture_denoiser, eta=0.0)
    torch.testing.assert_close(found, x.sign(), atol=3e-2, rtol=0)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_evaluations_says_how_often_a_sampler_asks(name: str) -> None:
    sigmas = uniform(LEVELS, 7).tolist()
    sampler = SAMPLERS[name]
    steps = sampler.sample(torch.ones(1, 2, 2), sigmas, SamplerOptions(), silence())
    assert len(run(steps, gaussian_denoiser)[1]) == sampler.evaluations(len(sigmas))


def test_the_catalogue_and_the_rules_name_the_same_samplers() -> None:
    assert [info.name for info in CATALOGUE] == list(SAMPLERS)


class EpsilonToy:
    """The mixture's denoiser as the noise-predicting network diffusers' schedulers expect."""

    def __call__(self, vp: Tensor, sigma: float) -> Tensor:
        x = vp * math.sqrt(1 + sigma**2)
        return (x - mixture_denoiser(x, sigma)) / sigma


def diffusers_run(scheduler: object, steps: int, *, scales_input: bool) -> tuple[Tensor, Tensor, list[float]]:
    """Run a diffusers scheduler on the mixture; return start, result and the sigmas it used."""
    scheduler.set_timesteps(steps)  # type: ignore[attr-defined]
    start = torch.linspace(-2, 2, 16, dtype=torch.float64).view(1, 1, 4, 4)
    x = start * (float(scheduler.init_noise_sigma) if scales_input else 1.0)  # type: ignore[attr-defined]
    sigmas = []
    for t in scheduler.timesteps:  # type: ignore[attr-defined]
        vp = scheduler.scale_model_input(x, t)  # type: ignore[attr-defined]
        sigma = float(LEVELS.sigma(t.double().unsqueeze(0))[0])
        if scales_input:
            sigma = float(scheduler.sigmas[scheduler.step_index])  # type: ignore[attr-defined]
        sigmas.append(sigma)
        x = scheduler.step(EpsilonToy()(vp, sigma), t, x).prev_sample  # type: ignore[attr-defined]
    return start, x, sigmas


def test_euler_takes_the_same_steps_as_diffusers() -> None:
    start, theirs, sigmas = diffusers_run(EulerDiscreteScheduler(**SD), 12, scales_input=True)
    begin = start[0] * math.sqrt(sigmas[0] ** 2 + 1)  # diffusers starts leading spacing at unit variance
    torch.testing.assert_close(
        sample("Euler", begin, [*sigmas, 0.0], mixture_denoiser), theirs[0], atol=1e-4, rtol=1e-4
    )


def test_heun_takes_the_same_steps_as_diffusers() -> None:
    scheduler = HeunDiscreteScheduler(**SD)
    start, theirs, sigmas = diffusers_run(scheduler, 9, scales_input=True)
    begin = start[0] * float(scheduler.init_noise_sigma)
    own = [*sigmas[::2], 0.0]
    torch.testing.assert_close(sample("Heun", begin, own, mixture_denoiser), theirs[0], atol=1e-4, rtol=1e-4)


def test_dpmpp_2m_takes_the_same_steps_as_diffusers() -> None:
    scheduler = DPMSolverMultistepScheduler(**SD, use_karras_sigmas=True, final_sigmas_type="zero")
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.double().tolist()
    x = torch.linspace(-2, 2, 16, dtype=torch.float64).view(1, 1, 4, 4)
    begin = x[0] * math.sqrt(1 + sigmas[0] ** 2)
    for t, sigma in zip(scheduler.timesteps, sigmas, strict=False):
        x = scheduler.step(EpsilonToy()(x, sigma), t, x).prev_sample
    torch.testing.assert_close(sample("DPM++ 2M", begin, sigmas, mixture_denoiser), x[0], atol=1e-4, rtol=1e-4)


def test_ddim_takes_the_same_steps_as_diffusers() -> None:
    scheduler = DDIMScheduler(**SD, clip_sample=False, steps_offset=1, set_alpha_to_one=False)
    scheduler.set_timesteps(20)
    sigmas = ddim_timesteps(LEVELS, 20).tolist()
    x = torch.linspace(-2, 2, 16, dtype=torch.float64).view(1, 1, 4, 4)
    begin = SAMPLERS["DDIM"].start(x[0], sigmas)
    for t, sigma in zip(scheduler.timesteps[:-1], sigmas, strict=False):  # theirs steps once more, from t = 1
        x = scheduler.step(EpsilonToy()(x, sigma), t, x).prev_sample
    torch.testing.assert_close(sample("DDIM", begin, sigmas, mixture_denoiser), x[0], atol=1e-4, rtol=1e-4)


def test_euler_ancestral_keeps_the_data_distribution() -> None:
    """Each fully ancestral step on Gaussian data must leave the exact marginal, up to first-order error."""
    draws = noise_stream(NoiseSource.CPU, 3, (1, 200, 200))
    sigmas = [*torch.linspace(math.log(8), math.log(0.02), 200, dtype=torch.float64).exp().tolist(), 0.0]
    x = MEAN + draws() * math.sqrt(SPREAD**2 + sigmas[0] ** 2)
    steps = SAMPLERS["Euler a"].sample(x, sigmas, SamplerOptions(), draws)
    result, _ = run(steps, gaussian_denoiser)
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(result.std()) == pytest.approx(SPREAD, abs=0.02)


def test_churn_raises_the_noise_level_that_is_asked_about() -> None:
    asked: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return gaussian_denoiser(x, sigma)

    sigmas = [4.0, 2.0, 1.0, 0.0]
    options = SamplerOptions(churn=0.6, churn_min_sigma=1.5, churn_max_sigma=3.0)
    run(SAMPLERS["Euler"].sample(torch.ones(1, 2, 2), sigmas, options, silence()), denoise)
    assert asked == pytest.approx([4.0, 2.0 * 1.2, 1.0])  # gamma = 0.6 / 3 steps, only inside the range


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ancestral_split_keeps_the_next_noise_level(eta: float) -> None:
    for sigma, sigma_next in pairwise([14.0, 3.0, 0.5, 0.03]):
        down, up = ancestral_split(sigma, sigma_next, eta)
        assert math.hypot(down, up) == pytest.approx(sigma_next)
    assert ancestral_split(0.03, 0.0, eta) == (0.0, 0.0)
