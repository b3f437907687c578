"""Sigma schedules against the published formulas and diffusers' tables."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from sfumato.core.sampling import SCHEDULES as CATALOGUE
from sfumato.core.sampling import find_sampler
from sfumato.engine.sampling.schedules import SCHEDULES, NoiseLevels, ddim_timesteps, karras, sigmas_for

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers

LEVELS = NoiseLevels.scaled_linear()


def test_stable_diffusions_levels_are_the_published_ones() -> None:
    assert pytest.approx(0.0292, abs=5e-5) == LEVELS.sigma_min
    assert pytest.approx(14.6146, abs=5e-4) == LEVELS.sigma_max


def test_sigma_and_timestep_are_inverse() -> None:
    timesteps = torch.tensor([0.0, 0.25, 17.0, 500.5, 998.75, 999.0], dtype=torch.float64)
    torch.testing.assert_close(LEVELS.timestep(LEVELS.sigma(timesteps)), timesteps)


def test_sigmas_outside_the_trained_range_take_the_nearest_timestep() -> None:
    assert LEVELS.timestep(torch.tensor([1e-4, 100.0], dtype=torch.float64)).tolist() == [0.0, 999.0]


@pytest.mark.parametrize("label", list(SCHEDULES))
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_schedules_fall_from_the_greatest_level_to_zero(label: str, steps: int) -> None:
    sigmas = SCHEDULES[label](LEVELS, steps)
    assert len(sigmas) == steps + 1
    assert sigmas[0].item() == pytest.approx(LEVELS.sigma_max)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_karras_is_the_papers_formula() -> None:
    steps, rho = 8, 7.0
    for i, sigma in enumerate(karras(LEVELS, steps)[:-1].tolist()):
        first, last = LEVELS.sigma_max ** (1 / rho), LEVELS.sigma_min ** (1 / rho)
        assert sigma == pytest.approx((first + i / (steps - 1) * (last - first)) ** rho)


def test_uniform_visits_the_levels_of_diffusers_linspace() -> None:
    theirs = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    theirs.set_timesteps(20)
    own = SCHEDULES["Uniform"](LEVELS, 20)
    torch.testing.assert_close(
        own.float(), theirs.sigmas, rtol=2e-3, atol=1e-4
    )  # theirs interpolates sigma, not its log


def test_ddim_makes_nineteen_transitions_of_twenty_steps_and_thirty_of_thirty() -> None:
    assert [len(ddim_timesteps(LEVELS, steps)) - 1 for steps in (20, 30, 50)] == [19, 30, 49]
    assert ddim_timesteps(LEVELS, 20)[-1] == LEVELS.sigmas[1]


def test_automatic_is_the_samplers_own_schedule_or_uniform() -> None:
    for name, label in (("DPM++ 2M", "Karras"), ("Euler", "Uniform")):
        chosen = sigmas_for(find_sampler(name)[0], "Automatic", LEVELS, 9)
        assert torch.equal(chosen, SCHEDULES[label](LEVELS, 9))


def test_the_catalogue_and_the_formulas_name_the_same_schedules() -> None:
    assert [info.label for info in CATALOGUE[1:]] == list(SCHEDULES)
