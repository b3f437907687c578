"""Samplers against exact solutions: their order of convergence, their marginals, and each other where theory says."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sfumato.core.errors import GenerationFailed
from sfumato.core.requests import NoiseSource, SamplerOptions, UniPCOptions, UniPCVariant
from sfumato.core.sampling import SAMPLERS as CATALOGUE
from sfumato.core.sampling import find_sampler
from sfumato.engine.sampling.ddim import variance_preserving
from sfumato.engine.sampling.dpm_solver import fast_orders, solver_step
from sfumato.engine.sampling.multistep import ADAMS_BASHFORTH, adams_weights, log_adams_weights
from sfumato.engine.sampling.noise import PictureNoise
from sfumato.engine.sampling.samplers import SAMPLERS
from sfumato.engine.sampling.schedules import NoiseLevels, karras_sigmas, sigmas_for
from sfumato.engine.sampling.sde import _er_sde
from sfumato.engine.sampling.singlestep import restart_pairs
from sfumato.engine.sampling.steps import Estimates, ancestral_split
from tests.engine.toys import (
    MEAN,
    SPREAD,
    Silence,
    both,
    gaussian_denoiser,
    gaussian_flow,
    mixture_denoiser,
    run,
    sample,
    wide_mixture_denoiser,
)
from tests.factories import make_request

LEVELS = NoiseLevels.scaled_linear()
PRESERVING = {"DDIM", "DDIM CFG++", "PLMS", "UniPC", "DDPM"}
"""Samplers that hand back variance-preserving latents."""

NOISELESS = [name for name in SAMPLERS if name not in ("LCM", "DDPM", "ER-SDE")]
"""Samplers that solve the probability flow ODE when eta is 0."""


def log_spaced(high: float, low: float, steps: int) -> list[float]:
    return torch.linspace(math.log(high), math.log(low), steps + 1, dtype=torch.float64).exp().tolist()


def error_at(name: str, sigmas: list[float], **options: object) -> float:
    """Return the error of an ODE solver on Gaussian data, whose flow is known."""
    x = torch.full((1, 2, 2), 12.0, dtype=torch.float64)
    exact = gaussian_flow(x, sigmas[0], sigmas[-1])
    exact = variance_preserving(exact, sigmas[-1]) if name in PRESERVING else exact
    return float((sample(name, x, sigmas, gaussian_denoiser, eta=0.0, **options) - exact).abs().max())


ORDERS = {
    "Euler": 1, "Euler a": 1, "DDIM": 1, "DDIM CFG++": 1,
    "Heun": 2, "DPM2": 2, "DPM2 a": 2, "DPM++ 2S": 2, "DPM++ 2S a": 2, "DPM++ SDE": 2,
    "DPM++ 2M": 2, "DPM++ 2M SDE": 2, "DPM++ 2M SDE Heun": 2, "RES multistep": 2,
}  # fmt: skip


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_error_shrinks_with_the_order_of_the_method(name: str, order: int) -> None:
    errors = [error_at(name, log_spaced(10, 0.05, steps)) for steps in (80, 160)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_dpmpp_3m_sde_is_second_order_with_a_small_constant() -> None:
    """The weight of the second derivative is the published one, half of Taylor's, so the order is not 3."""
    errors = [error_at("DPM++ 3M SDE", log_spaced(10, 0.05, steps)) for steps in (80, 160)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert errors[0] < error_at("DPM++ 2M SDE", log_spaced(10, 0.05, 80)) / 2


@pytest.mark.parametrize(("name", "least"), [("LMS", 3.4), ("IPNDM", 3.4), ("PLMS", 3.4), ("DEIS", 2.8)])
def test_multistep_rules_keep_their_order_on_even_steps(name: str, least: float) -> None:
    even = [torch.linspace(10, 1, steps + 1, dtype=torch.float64).tolist() for steps in (160, 320)]
    errors = [error_at(name, sigmas) for sigmas in even]
    assert math.log2(errors[0] / errors[1]) > least


@pytest.mark.parametrize("variant", list(UniPCVariant))
@pytest.mark.parametrize("order", [2, 3])
def test_unipcs_corrector_raises_the_order_by_one(variant: UniPCVariant, order: int) -> None:
    options = UniPCOptions(variant=variant, order=order, lowers_order_at_end=False)
    errors = [error_at("UniPC", log_spaced(10, 0.05, steps), unipc=options) for steps in (40, 80)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order + 1, abs=0.25)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solvers_steps_have_their_orders(order: int) -> None:
    def error(h: float) -> float:
        x, s = torch.full((1, 2, 2), 3.0, dtype=torch.float64), 0.3
        slope = (x - gaussian_denoiser(x, math.exp(-s))) * math.exp(s)
        (high, _), _ = run(solver_step(x, s, s + h, order, slope), gaussian_denoiser)
        return float((high - gaussian_flow(x, math.exp(-s), math.exp(-s - h))).abs().max())

    assert math.log2(error(0.02) / error(0.01)) == pytest.approx(order + 1, abs=0.1)


@pytest.mark.parametrize("count", range(1, 40))
def test_dpm_fast_spends_exactly_the_evaluations_it_is_given(count: int) -> None:
    assert sum(fast_orders(count)) == count


def test_dpm_adaptive_meets_its_tolerance() -> None:
    assert error_at("DPM adaptive", log_spaced(10, 0.05, 20)) < 0.05


def test_dpm_adaptive_gives_up_on_a_denoiser_without_sense() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(GenerationFailed):
        sample(
            "DPM adaptive", torch.ones(1, 2, 2), [10.0, 0.1, 0.0],
            lambda x, sigma: torch.randn(x.shape, generator=generator) * 1e9,
        )  # fmt: skip


def test_adams_weights_integrate_cubics_exactly() -> None:
    knots = [3.0, 4.5, 5.0, 7.0]
    weights = adams_weights(knots, 3.0, 2.0)
    for power in range(4):
        exact = (2.0 ** (power + 1) - 3.0 ** (power + 1)) / (power + 1)
        assert sum(w * k**power for w, k in zip(weights, knots, strict=True)) == pytest.approx(exact)


def test_adams_weights_at_even_distances_are_the_textbooks() -> None:
    for count, textbook in enumerate(ADAMS_BASHFORTH, start=1):
        assert adams_weights([10.0 + i for i in range(count)], 10.0, 9.0) == pytest.approx([-w for w in textbook])


def test_log_adams_weights_integrate_quadratics_of_log_sigma_exactly() -> None:
    """The antiderivative of (log s)^2 is s (log^2 s - 2 log s + 2)."""
    knots = [3.0, 4.5, 7.0]
    weights = log_adams_weights(knots, 3.0, 1.5)
    exact = [s * (math.log(s) ** 2 - 2 * math.log(s) + 2) for s in (3.0, 1.5)]
    assert sum(w * math.log(k) ** 2 for w, k in zip(weights, knots, strict=True)) == pytest.approx(exact[1] - exact[0])


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("DPM++ 2M SDE", "DPM++ 2M"),
        ("DPM++ 2M SDE Heun", "RES multistep"),
        ("DPM++ SDE", "DPM++ 2S"),
        ("DPM++ 2S a", "DPM++ 2S"),
        ("DPM2 a", "DPM2"),
        ("Euler a", "Euler"),
        ("DDIM CFG++", "DDIM"),
    ],
)
def test_without_noise_a_sampler_is_its_deterministic_twin(name: str, twin: str) -> None:
    x = torch.linspace(-20, 20, 16, dtype=torch.float64).view(1, 4, 4)
    sigmas = [*log_spaced(14, 0.03, 9), 0.0]
    one, other = (sample(n, x, sigmas, wide_mixture_denoiser, eta=0.0) for n in (name, twin))
    torch.testing.assert_close(one, other)


def test_er_sde_with_phi_of_sigma_solves_the_probability_flow_ode_with_order_2_or_more() -> None:
    def error(steps: int) -> float:
        sigmas = log_spaced(10, 0.05, steps)
        x = torch.full((1, 2, 2), 12.0, dtype=torch.float64)
        found, _ = run(_er_sde(x, sigmas, SamplerOptions(), Silence(), lambda s: s), gaussian_denoiser)
        return float((found - gaussian_flow(x, sigmas[0], sigmas[-1])).abs().max())

    assert math.log2(error(80) / error(160)) > 1.9


@pytest.mark.parametrize("name", NOISELESS)
def test_samplers_find_the_mode_of_a_mixture(name: str) -> None:
    x = torch.tensor([[[3.0, -3.0], [8.0, -8.0]]], dtype=torch.float64)
    sigmas = [*log_spaced(10, 0.03, 14), 0.0]
    found = sample(name, x, sigmas, mixture_denoiser, eta=0.0)
    torch.testing.assert_close(found, x.sign(), atol=0.15, rtol=0)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if not SAMPLERS[name].is_adaptive])
@pytest.mark.parametrize("schedule", ["Automatic", "KL Optimal", "Simple", "SGM Uniform"])
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 37])
def test_evaluations_says_how_often_a_sampler_asks(name: str, schedule: str, steps: int) -> None:
    sampler = SAMPLERS[name]
    sigmas = sigmas_for(find_sampler(name)[0], schedule, LEVELS, steps).tolist()
    rule = sampler.run(torch.ones(1, 2, 2), sigmas, SamplerOptions(), Silence(), LEVELS)
    found, asked = run(rule, both(gaussian_denoiser) if sampler.wants_unguided else gaussian_denoiser)
    assert len(asked) == sampler.evaluations(sigmas)
    assert found.isfinite().all()


def test_the_catalogue_and_the_rules_name_the_same_samplers() -> None:
    assert [info.name for info in CATALOGUE] == list(SAMPLERS)


STOCHASTIC = [
    "Euler a", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "DDPM",
    "DPM adaptive", "DPM fast", "Restart", "ER-SDE",
]  # fmt: skip


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_keep_the_data_distribution(name: str) -> None:
    """Every step on Gaussian data must leave the exact marginal, up to the order of the method."""
    request = make_request(seed=3, noise_source=NoiseSource.CPU)
    noise = PictureNoise(request, 0, (1, 100, 100))
    sigmas = [*log_spaced(8, 0.02, 60), 0.0]
    x = MEAN + noise.start * math.sqrt(SPREAD**2 + sigmas[0] ** 2)
    result, _ = run(SAMPLERS[name].sample(x, sigmas, SamplerOptions(), noise), gaussian_denoiser)
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(result.std()) == pytest.approx(SPREAD, abs=0.03)


@pytest.mark.parametrize("name", ["DPM++ SDE", "DPM++ 2M SDE", "DPM++ 3M SDE"])
def test_sde_samplers_converge_along_one_brownian_path(name: str) -> None:
    def finish(steps: int) -> torch.Tensor:
        noise = PictureNoise(make_request(seed=5, noise_source=NoiseSource.CPU), 0, (1, 8, 8))
        sigmas = log_spaced(8, 0.1, steps)
        return run(SAMPLERS[name].sample(noise.start * 8, sigmas, SamplerOptions(), noise), wide_mixture_denoiser)[0]

    finest = finish(512)
    errors = [float((finish(steps) - finest).square().mean().sqrt()) for steps in (8, 64)]
    assert errors[1] < errors[0] / 3


def test_lcm_goes_to_the_estimate_and_back_up() -> None:
    class One(Silence):
        def __call__(self) -> torch.Tensor:
            return torch.ones(1, 2, 2)

    steps = SAMPLERS["LCM"].sample(torch.zeros(1, 2, 2), [4.0, 2.0, 0.0], SamplerOptions(), One())
    found, asked = run(steps, lambda x, sigma: x * 0 + 10)
    assert (float(asked[1][0, 0, 0]), float(found[0, 0, 0])) == (12.0, 10.0)


def test_a_consistency_model_keeps_some_of_its_input_at_the_least_timestep() -> None:
    """c_skip and c_out of Luo et al. 2023, Eq. 9, at timestep 19, scaled by 10, with sigma_data 1/2."""
    sigma = float(LEVELS.sigmas[19])
    rule = SAMPLERS["LCM"].run(torch.ones(1, 2, 2), [sigma, 0.0], SamplerOptions(), Silence(), LEVELS)
    found, _ = run(rule, lambda x, sigma: x * 0 + 3)
    scaled = 190.0
    expected = 0.25 / (scaled**2 + 0.25) + 3 * scaled / math.sqrt(scaled**2 + 0.25)
    assert float(found[0, 0, 0]) == pytest.approx(expected, rel=1e-6)


def test_ddim_cfgpp_renoises_in_the_unguided_direction() -> None:
    x = torch.full((1, 2, 2), 6.0, dtype=torch.float64)
    steps = SAMPLERS["DDIM CFG++"].sample(x, [4.0, 1.0], SamplerOptions(), Silence())
    found, _ = run(steps, lambda x, sigma: Estimates(x * 0 + 3, x * 0 + 2))
    assert float(found[0, 0, 0]) == pytest.approx((3 + (6 - 2) / 4) / math.sqrt(2))


@pytest.mark.parametrize(("steps", "count", "times"), [(20, 9, 1), (35, 9, 1), (36, 9, 2), (50, 12, 2)])
def test_restart_goes_back_up_once_or_twice_and_makes_all_its_steps(steps: int, count: int, times: int) -> None:
    pairs = restart_pairs([*karras_sigmas(steps, 0.03, 14.6, 7.0).tolist(), 0.0])
    jumps = [(below, above) for (_, below), (above, _) in pairwise(pairs) if above != pytest.approx(below)]
    assert len(pairs) == steps
    assert len(jumps) == times
    for below, above in jumps:
        assert below == pytest.approx(0.1, abs=0.06)
        assert above == pytest.approx(2.0, abs=0.7)


def test_restart_with_few_steps_is_heun() -> None:
    x, sigmas = torch.full((1, 2, 2), 9.0, dtype=torch.float64), [*log_spaced(10, 0.05, 12), 0.0]
    torch.testing.assert_close(*(sample(name, x, sigmas, wide_mixture_denoiser) for name in ("Restart", "Heun")))


def test_churn_raises_the_noise_level_that_is_asked_about() -> None:
    asked: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return gaussian_denoiser(x, sigma)

    sigmas = [4.0, 2.0, 1.0, 0.0]
    options = SamplerOptions(churn=0.6, churn_min_sigma=1.5, churn_max_sigma=3.0)
    run(SAMPLERS["Euler"].sample(torch.ones(1, 2, 2), sigmas, options, Silence()), denoise)
    assert asked == pytest.approx([4.0, 2.0 * 1.2, 1.0])  # gamma = 0.6 / 3 steps, only inside the range


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ancestral_split_keeps_the_next_noise_level(eta: float) -> None:
    for sigma, sigma_next in pairwise([14.0, 3.0, 0.5, 0.03]):
        down, up = ancestral_split(sigma, sigma_next, eta)
        assert math.hypot(down, up) == pytest.approx(sigma_next)
    assert ancestral_split(0.03, 0.0, eta) == (0.0, 0.0)
