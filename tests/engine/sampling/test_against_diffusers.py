"""Samplers against diffusers' schedulers where they implement the same rule, step by step on a Gaussian mixture."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from sfumato.core.requests import SamplerOptions, UniPCOptions, UniPCVariant
from sfumato.engine.sampling.samplers import SAMPLERS
from sfumato.engine.sampling.schedules import NoiseLevels
from tests.engine.toys import Silence, run, sample, wide_mixture_denoiser

pytestmark = pytest.mark.filterwarnings(  # of diffusers
    "ignore:__array__ implementation:DeprecationWarning", "ignore:__array_wrap__:DeprecationWarning"
)

LEVELS = NoiseLevels.scaled_linear()
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
START = torch.linspace(-2, 2, 16, dtype=torch.float64).view(1, 4, 4)


def epsilon(vp: Tensor, sigma: float) -> Tensor:
    """Return what the noise-predicting network of diffusers' schedulers would say of scaled latents."""
    x = vp * math.sqrt(1 + sigma**2)
    return (x - wide_mixture_denoiser(x, sigma)) / sigma


def close(ours: Tensor, theirs: Tensor) -> None:
    # Theirs keep sigmas in float32.
    torch.testing.assert_close(ours, theirs.double(), atol=1e-4, rtol=1e-4)


def exploding_run(scheduler: Any, steps: int) -> tuple[Tensor, Tensor, list[float]]:
    """Run a scheduler in variance-exploding coordinates; return start, result and the sigmas it used."""
    scheduler.set_timesteps(steps)
    start = START * float(scheduler.init_noise_sigma)
    x, sigmas = start, []
    for t in scheduler.timesteps:
        vp = scheduler.scale_model_input(x, t)
        if scheduler.step_index is None:
            scheduler._init_step_index(t)
        asked = scheduler.sigmas[scheduler.step_index]
        if hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order:
            asked = scheduler.sigmas_interpol[scheduler.step_index]
        sigmas.append(float(asked))
        x = scheduler.step(epsilon(vp, sigmas[-1]), t, x).prev_sample
    return start, x, sigmas


@pytest.mark.parametrize(("name", "kind"), [("Euler", EulerDiscreteScheduler), ("LMS", LMSDiscreteScheduler)])
def test_euler_and_linear_multistep_take_the_same_steps(name: str, kind: Any) -> None:
    start, theirs, sigmas = exploding_run(kind(**SD, timestep_spacing="linspace"), 12)
    close(sample(name, start, [*sigmas, 0.0], wide_mixture_denoiser), theirs)


def test_heun_takes_the_same_steps() -> None:
    start, theirs, sigmas = exploding_run(HeunDiscreteScheduler(**SD), 9)
    close(sample("Heun", start, [*sigmas[::2], 0.0], wide_mixture_denoiser), theirs)


def test_dpm2_takes_the_same_steps() -> None:
    start, theirs, sigmas = exploding_run(KDPM2DiscreteScheduler(**SD), 9)
    close(sample("DPM2", start, [*sigmas[::2], 0.0], wide_mixture_denoiser), theirs)


def preserving_run(scheduler: Any, steps: int, draws: Callable[[], Tensor] | None = None) -> tuple[Tensor, list[float]]:
    """Run a scheduler in variance-preserving coordinates; return its result and sigmas."""
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.double().tolist()
    x = START.unsqueeze(0)
    for t, sigma in zip(scheduler.timesteps, sigmas, strict=False):
        extra = {"variance_noise": draws()} if draws else {}
        x = scheduler.step(epsilon(x, sigma), t, x, **extra).prev_sample
    return x[0], sigmas


def begun(sigmas: list[float]) -> Tensor:
    return START * math.sqrt(1 + sigmas[0] ** 2)


def test_dpmpp_2m_takes_the_same_steps() -> None:
    theirs, sigmas = preserving_run(
        DPMSolverMultistepScheduler(**SD, use_karras_sigmas=True, final_sigmas_type="zero"), 10
    )
    close(sample("DPM++ 2M", begun(sigmas), sigmas, wide_mixture_denoiser), theirs)


def test_deis_takes_the_same_steps_as_theirs_of_order_3() -> None:
    scheduler = DEISMultistepScheduler(**SD, solver_order=3, lower_order_final=False)
    scheduler.set_timesteps(14)
    sigmas = scheduler.sigmas.double().tolist()[:-1]
    x = START.unsqueeze(0)
    for t, sigma in zip(scheduler.timesteps[:-1], sigmas, strict=False):
        x = scheduler.step(epsilon(x, sigma), t, x).prev_sample
    ours = sample("DEIS", begun(sigmas), sigmas, wide_mixture_denoiser)
    close(ours / math.sqrt(1 + sigmas[-1] ** 2), x[0])


@pytest.mark.parametrize("variant", list(UniPCVariant))
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("lowers", [True, False])
def test_unipc_takes_the_same_steps(variant: UniPCVariant, order: int, lowers: bool) -> None:
    scheduler = UniPCMultistepScheduler(
        **SD,
        solver_type=variant.value,
        solver_order=order,
        lower_order_final=lowers,
        timestep_spacing="linspace",
        final_sigmas_type="sigma_min",
    )
    theirs, sigmas = preserving_run(scheduler, 10)
    options = UniPCOptions(variant=variant, order=order, lowers_order_at_end=lowers)
    close(sample("UniPC", begun(sigmas), sigmas, wide_mixture_denoiser, unipc=options), theirs)


def shared_draws(count: int) -> Callable[[], Callable[[], Tensor]]:
    """Return a maker of streams that all give the same `count` draws."""
    draws = torch.randn(count, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    def stream() -> Callable[[], Tensor]:
        rest: Iterator[Tensor] = iter(draws)
        return lambda: next(rest)

    return stream


class Given(Silence):
    """A picture's noise that is a given stream, also where Brownian increments are asked for."""

    def __init__(self, stream: Callable[[], Tensor]) -> None:
        super().__init__((1, 4, 4))
        self._stream = stream

    def __call__(self) -> Tensor:
        return self._stream()

    def brownian(self, sigmas: list[float]) -> Callable[[float, float], Tensor]:
        return lambda sigma, sigma_next: self._stream()


@pytest.mark.parametrize(("name", "solver"), [("DPM++ 2M SDE", "midpoint"), ("DPM++ 2M SDE Heun", "heun")])
def test_dpmpp_2m_sde_takes_the_same_steps(name: str, solver: str) -> None:
    stream = shared_draws(12)
    scheduler = DPMSolverMultistepScheduler(
        **SD, algorithm_type="sde-dpmsolver++", solver_type=solver, use_karras_sigmas=True, final_sigmas_type="zero"
    )
    theirs, sigmas = preserving_run(scheduler, 10, stream())
    steps = SAMPLERS[name].sample(begun(sigmas), sigmas, SamplerOptions(), Given(stream()))
    close(run(steps, wide_mixture_denoiser)[0], theirs)


def test_euler_ancestral_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.schedulers import scheduling_euler_ancestral_discrete

    stream = shared_draws(12)
    theirs_draw = stream()
    monkeypatch.setattr(scheduling_euler_ancestral_discrete, "randn_tensor", lambda *_, **__: theirs_draw())
    start, theirs, sigmas = exploding_run(EulerAncestralDiscreteScheduler(**SD), 8)
    steps = SAMPLERS["Euler a"].sample(start, [*sigmas, 0.0], SamplerOptions(), Given(stream()))
    close(run(steps, wide_mixture_denoiser)[0], theirs)


def timestep_run(scheduler: Any, steps: int, *, drop: int = 1, **extra: Any) -> Tensor:
    """Run a scheduler of integer timesteps, all but its last `drop` steps."""
    scheduler.set_timesteps(steps)
    x = START.unsqueeze(0)
    for t in scheduler.timesteps[: len(scheduler.timesteps) - drop]:
        x = scheduler.step(epsilon(x, float(LEVELS.sigmas[t])), t, x, **extra).prev_sample
    return x[0]


def test_ddim_takes_the_same_steps() -> None:
    scheduler = DDIMScheduler(**SD, clip_sample=False, steps_offset=1, set_alpha_to_one=False)
    theirs = timestep_run(scheduler, 20)  # theirs steps once more, from t = 1
    sigmas = [float(LEVELS.sigmas[t]) for t in scheduler.timesteps]
    close(sample("DDIM", begun(sigmas), sigmas, wide_mixture_denoiser), theirs)


def test_plms_takes_the_same_steps() -> None:
    scheduler = PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
    theirs = timestep_run(scheduler, 20)
    sigmas = [float(LEVELS.sigmas[t]) for t in dict.fromkeys(scheduler.timesteps.tolist())]
    close(sample("PLMS", begun(sigmas), sigmas, wide_mixture_denoiser), theirs)


def test_ddpm_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.schedulers import scheduling_ddpm

    stream = shared_draws(24)
    theirs_draw = stream()
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: theirs_draw())
    scheduler = DDPMScheduler(**SD, clip_sample=False, steps_offset=1)
    theirs = timestep_run(scheduler, 20)
    sigmas = [float(LEVELS.sigmas[t]) for t in scheduler.timesteps]
    steps = SAMPLERS["DDPM"].sample(begun(sigmas), sigmas, SamplerOptions(), Given(stream()))
    close(run(steps, wide_mixture_denoiser)[0], theirs)


def test_numpy_and_torch_agree_on_the_mixture() -> None:
    """The oracle's own oracle: the posterior mean of two Gaussians by Bayes' rule."""
    sigma, x = 0.7, 0.3
    variance = 0.25 + sigma**2
    weights = np.exp([-((x - m) ** 2) / (2 * variance) for m in (-1, 1)])
    means = [m + 0.25 / variance * (x - m) for m in (-1, 1)]
    expected = float(weights @ np.array(means) / weights.sum())
    assert float(wide_mixture_denoiser(torch.tensor(x, dtype=torch.float64), sigma)) == pytest.approx(expected)
