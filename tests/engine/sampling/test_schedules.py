"""Sigma schedules against the published formulas and diffusers' tables."""

import math

import mpmath
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from sfumato.core.errors import InvalidRequest
from sfumato.core.requests import SamplerOptions, ScheduleOptions, UniPCOptions, UniPCSpacing
from sfumato.core.sampling import SCHEDULES as CATALOGUE
from sfumato.core.sampling import find_sampler
from sfumato.engine.sampling.schedules import (
    SCHEDULES,
    NoiseLevels,
    ddim_timesteps,
    karras,
    lcm_levels,
    sigmas_for,
    unipc_levels,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers

LEVELS = NoiseLevels.scaled_linear()
DEFAULTS = ScheduleOptions()
EULER = find_sampler("Euler")[0]


def test_stable_diffusions_levels_are_the_published_ones() -> None:
    assert pytest.approx(0.0292, abs=5e-5) == LEVELS.sigma_min
    assert pytest.approx(14.6146, abs=5e-4) == LEVELS.sigma_max


def test_sigma_and_timestep_are_inverse() -> None:
    timesteps = torch.tensor([0.0, 0.25, 17.0, 500.5, 998.75, 999.0], dtype=torch.float64)
    torch.testing.assert_close(LEVELS.timestep(LEVELS.sigma(timesteps)), timesteps)


def test_sigmas_outside_the_trained_range_take_the_nearest_timestep() -> None:
    assert LEVELS.timestep(torch.tensor([1e-4, 100.0], dtype=torch.float64)).tolist() == [0.0, 999.0]


@pytest.mark.parametrize("label", list(SCHEDULES))
@pytest.mark.parametrize("steps", [2, 20])
def test_schedules_fall_from_the_greatest_level_to_zero(label: str, steps: int) -> None:
    sigmas = sigmas_for(EULER, label, LEVELS, steps)
    assert len(sigmas) == steps + 1
    if label != "DDIM":  # which begins a stride below
        assert sigmas[0].item() == pytest.approx(LEVELS.sigma_max, rel=1e-4)
    assert sigmas[-1] == (pytest.approx(LEVELS.sigma_min) if label == "KL Optimal" else 0)
    assert (sigmas.diff() < 0).all()


def test_karras_is_the_papers_formula() -> None:
    steps, rho = 8, 7.0
    for i, sigma in enumerate(karras(LEVELS, steps, DEFAULTS).tolist()):
        first, last = LEVELS.sigma_max ** (1 / rho), LEVELS.sigma_min ** (1 / rho)
        assert sigma == pytest.approx((first + i / (steps - 1) * (last - first)) ** rho)


def test_uniform_visits_the_levels_of_diffusers_linspace() -> None:
    theirs = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    theirs.set_timesteps(20)
    own = sigmas_for(EULER, "Uniform", LEVELS, 20)
    torch.testing.assert_close(
        own.float(), theirs.sigmas, rtol=2e-3, atol=1e-4
    )  # theirs interpolates sigma, not its log


def test_ddim_makes_nineteen_transitions_of_twenty_steps_and_thirty_of_thirty() -> None:
    assert [len(ddim_timesteps(LEVELS, steps, SamplerOptions())) - 1 for steps in (20, 30, 50)] == [19, 30, 49]
    assert ddim_timesteps(LEVELS, 20, SamplerOptions())[-1] == LEVELS.sigmas[1]


def test_automatic_is_the_samplers_own_schedule_or_uniform() -> None:
    for name, label in (("DPM++ 2M", "Karras"), ("Euler", "Uniform")):
        chosen = sigmas_for(find_sampler(name)[0], "Automatic", LEVELS, 9)
        assert torch.equal(chosen[:-1], SCHEDULES[label](LEVELS, 9, DEFAULTS))


def test_the_catalogue_and_the_formulas_name_the_same_schedules() -> None:
    assert [info.label for info in CATALOGUE[1:]] == list(SCHEDULES)


@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_exponential_sigmas"])
def test_karras_and_exponential_are_diffusers(flag: str) -> None:
    theirs = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace", **{flag: True}
    )
    theirs.set_timesteps(15)
    label = "Karras" if flag == "use_karras_sigmas" else "Exponential"
    torch.testing.assert_close(sigmas_for(EULER, label, LEVELS, 15).float(), theirs.sigmas, rtol=1e-4, atol=1e-5)


def test_beta_takes_the_quantiles_of_the_distribution() -> None:
    """mpmath's incomplete beta function must give the probabilities back."""
    sigmas = SCHEDULES["Beta"](LEVELS, 9, ScheduleOptions(beta_alpha=0.7, beta_beta=1.3))
    shares = (sigmas - LEVELS.sigma_min) / (LEVELS.sigma_max - LEVELS.sigma_min)
    found = [float(mpmath.betainc(0.7, 1.3, 0, x, regularized=True)) for x in shares.clamp(0, 1).tolist()]
    assert found == pytest.approx([1 - i / 8 for i in range(9)], abs=1e-9)


def test_polyexponential_of_rho_1_is_exponential() -> None:
    one, other = (SCHEDULES[label](LEVELS, 12, DEFAULTS) for label in ("Polyexponential", "Exponential"))
    torch.testing.assert_close(one, other)


def test_polyexponential_bends_log_sigma_by_rho() -> None:
    sigmas = SCHEDULES["Polyexponential"](LEVELS, 5, ScheduleOptions(rho=2)).log()
    low, high = math.log(LEVELS.sigma_min), math.log(LEVELS.sigma_max)
    expected = [low + (1 - i / 4) ** 2 * (high - low) for i in range(5)]
    assert sigmas.tolist() == pytest.approx(expected)


def test_kl_optimal_spaces_arctangents() -> None:
    angles = SCHEDULES["KL Optimal"](LEVELS, 8, DEFAULTS).atan().diff()
    assert angles.tolist() == pytest.approx([angles[0].item()] * 8)


def test_align_your_steps_of_its_own_count_is_its_table() -> None:
    sigmas = SCHEDULES["Align Your Steps"](LEVELS, 11, DEFAULTS)
    assert sigmas.tolist() == pytest.approx(list(LEVELS.aligned))
    halfway = SCHEDULES["Align Your Steps"](LEVELS, 21, DEFAULTS)[1]
    assert float(halfway) == pytest.approx(math.sqrt(LEVELS.aligned[0] * LEVELS.aligned[1]))


def test_tables_of_timesteps_are_the_published_ones() -> None:
    def timesteps(label: str, steps: int) -> list[float]:
        return LEVELS.timestep(SCHEDULES[label](LEVELS, steps, DEFAULTS)).round().tolist()

    assert timesteps("Simple", 4) == [999, 749, 499, 249]
    assert timesteps("DDIM", 4) == [751, 501, 251, 1]
    assert timesteps("Turbo", 4) == [999, 749, 499, 249]
    assert timesteps("Normal", 4) == [999, 666, 333, 0]
    assert timesteps("SGM Uniform", 3) == [999, 666, 333]
    assert LEVELS.timestep(lcm_levels(LEVELS, 3, SamplerOptions())[:-1]).round().tolist()[::2] == [999, 19]


@pytest.mark.parametrize("label", ["Karras", "Exponential", "Polyexponential", "KL Optimal", "Beta"])
def test_the_range_asked_for_is_the_range_visited(label: str) -> None:
    sigmas = SCHEDULES[label](LEVELS, 6, ScheduleOptions(min_sigma=0.1, max_sigma=9.0))
    assert (float(sigmas[0]), float(sigmas[-1])) == pytest.approx((9.0, 0.1))


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        sigmas_for(EULER, "Karras", LEVELS, 6, ScheduleOptions(min_sigma=20.0))


@pytest.mark.parametrize("name", ["DPM2", "Euler"])
def test_the_penultimate_level_is_left_out_when_the_sampler_or_the_request_says(name: str) -> None:
    info = find_sampler(name)[0]
    found = sigmas_for(info, "Karras", LEVELS, 6, ScheduleOptions(discards_penultimate=name == "Euler"))
    whole = SCHEDULES["Karras"](LEVELS, 7, DEFAULTS).tolist()
    assert found.tolist() == [*whole[:6], 0.0]


@pytest.mark.parametrize("spacing", list(UniPCSpacing))
def test_unipc_makes_as_many_steps_as_asked_from_end_to_end(spacing: UniPCSpacing) -> None:
    sigmas = unipc_levels(LEVELS, 20, SamplerOptions(unipc=UniPCOptions(spacing=spacing)))
    assert len(sigmas) == 21
    assert (float(sigmas[0]), float(sigmas[-1])) == pytest.approx((LEVELS.sigma_max, LEVELS.sigma_min))


@pytest.mark.parametrize("name", ["DDIM", "PLMS", "UniPC", "LCM"])
def test_samplers_with_levels_of_their_own_take_a_schedule_that_is_named(name: str) -> None:
    info = find_sampler(name)[0]
    assert torch.equal(sigmas_for(info, "Karras", LEVELS, 8), sigmas_for(EULER, "Karras", LEVELS, 8))
