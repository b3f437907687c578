"""The denoise loop: a picture is the same alone and in any company, and nobody waits for a stranger's steps."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfumato.core.errors import GenerationFailed
from sfumato.core.requests import GuidanceSkips, NoiseSource, SamplerOptions
from sfumato.core.sampling import SCHEDULES, find_sampler, find_schedule
from sfumato.engine.batching import BucketShares, WidthTuner
from sfumato.engine.conditioning import Conditioning
from sfumato.engine.denoising import DenoiseLoop, LivePicture
from sfumato.engine.families.base import LatentCodec
from sfumato.engine.guidance import Errand, Guide, Row, RowSteps, guided
from sfumato.engine.guidance import Network as Target
from sfumato.engine.sampling.noise import PictureNoise
from sfumato.engine.sampling.samplers import SAMPLERS
from sfumato.engine.sampling.schedules import NoiseLevels, sigmas_for
from tests.factories import make_request

NO_CODEC = cast(LatentCodec, None)
"""The loop decodes nothing."""
LEVELS = NoiseLevels.scaled_linear()
WEIGHT = torch.linspace(-1, 1, 4 * 6).reshape(4, 6)


class Network:
    """A small network that mixes a picture's channels with its conditioning, and counts its rows."""

    def __init__(self) -> None:
        self.widths: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor, told: Conditioning) -> Tensor:
        self.widths.append(len(x))
        s = sigma.float().view(-1, 1, 1, 1)
        prompt = (told.states.mean(dim=1) @ WEIGHT.T).view(len(x), 4, 1, 1)
        return (x + s * s * torch.tanh(x + prompt)) / (1 + s * s)


def picture(
    network: object, *, sampler: str = "Euler", steps: int = 5, seed: int = 0, scale: float = 5.0, size: int = 8,
    chunks: int = 1, job: str = "job", model: str = "m", schedule: str | None = None, skip_below: float = 0.0,
) -> LivePicture:  # fmt: skip
    info, _ = find_sampler(sampler)
    rule = SAMPLERS[info.name]
    sigmas = sigmas_for(info, find_schedule(schedule).label, LEVELS, steps).tolist()
    noise = PictureNoise(make_request(seed=seed, noise_source=NoiseSource.CPU), 0, (4, size, 8))
    asks = rule.run(rule.start(noise.start, sigmas), sigmas, SamplerOptions(), noise, LEVELS)
    positive = Conditioning(torch.full((3 * chunks, 6), 0.1 * (seed + 1)))
    return LivePicture(
        job_id=job,
        index=seed,
        codec=NO_CODEC,
        steps=guided(
            asks,
            Target(model, network),  # type: ignore[arg-type]
            Guide.constant(positive, Conditioning(torch.zeros(3, 6))),
            scale,
            skips=GuidanceSkips(below_sigma=skip_below),
            wants_unguided=rule.wants_unguided,
        ),
        evaluations=rule.evaluations(sigmas),
    )


def finish(loop: DenoiseLoop) -> dict[int, Tensor]:
    done = {}
    while (turn := loop.turn()) is not None:
        assert not turn.failed
        done |= {p.index: latents for p, latents in turn.ended}
    return done


def alone(**choices: object) -> Tensor:
    loop = DenoiseLoop()
    loop.add(picture(Network(), **choices))  # type: ignore[arg-type]
    (latents,) = finish(loop).values()
    return latents


REQUESTS = st.fixed_dictionaries(
    {
        "sampler": st.sampled_from(list(SAMPLERS)),
        "schedule": st.sampled_from([info.label for info in SCHEDULES]),
        "skip_below": st.sampled_from([0.0, 3.0]),
        "steps": st.integers(1, 9),
        "scale": st.sampled_from([1.0, 3.0, 7.5]),
        "size": st.sampled_from([8, 16]),
        "chunks": st.integers(1, 3),
    }
)


@settings(max_examples=40, deadline=None)
@given(st.lists(REQUESTS, min_size=2, max_size=6), st.data())
def test_a_picture_is_the_same_alone_and_among_strangers(mix: list[dict[str, object]], data: st.DataObject) -> None:
    network, loop, done = Network(), DenoiseLoop(), {}
    for seed, choices in enumerate(mix):
        loop.add(picture(network, seed=seed, job=str(seed), **choices))  # type: ignore[arg-type]
        for _ in range(data.draw(st.integers(0, 3))):
            if (turn := loop.turn()) is not None:
                done |= {p.index: latents for p, latents in turn.ended}
    done |= finish(loop)
    for seed, choices in enumerate(mix):
        # Latents start at 15 times the noise, and float32 sums of another batch width differ in their last bits.
        torch.testing.assert_close(done[seed], alone(seed=seed, **choices), rtol=2e-4, atol=2e-4)


def test_unrelated_requests_share_a_forward_pass() -> None:
    network, loop = Network(), DenoiseLoop()
    for seed, name in enumerate(["Euler", "DPM++ 2M", "Heun"]):
        loop.add(picture(network, sampler=name, steps=10 + seed, seed=seed, job=name, scale=3.0 + seed))
    finish(loop)
    assert max(network.widths) == 6


def test_a_short_request_does_not_wait_for_a_long_one() -> None:
    network, loop = Network(), DenoiseLoop(widest=2)
    loop.add(picture(network, steps=50, seed=0, job="long"))
    for _ in range(3):
        loop.turn()
    loop.add(picture(network, steps=4, seed=1, job="short"))
    turns = 0
    while not any(p.job_id == "short" for p, _ in loop.turn().ended):  # type: ignore[union-attr]
        turns += 1
    assert turns <= 6


def test_a_long_request_is_not_starved_by_a_stream_of_short_ones() -> None:
    network, loop = Network(), DenoiseLoop(widest=2)
    loop.add(picture(network, steps=30, seed=0, job="long"))
    ended: list[str] = []
    for seed in range(1, 200):
        if len(loop) < 3:
            loop.add(picture(network, steps=4, seed=seed, job="short"))
        turn = loop.turn()
        assert turn is not None
        ended += [p.job_id for p, _ in turn.ended]
    assert "long" in ended


def test_guidance_of_one_asks_for_one_row() -> None:
    network, loop = Network(), DenoiseLoop()
    loop.add(picture(network, steps=3, scale=1.0))
    finish(loop)
    assert network.widths == [1, 1, 1]


def test_a_job_that_is_dropped_leaves_the_others_alone() -> None:
    network, loop = Network(), DenoiseLoop()
    loop.add(picture(network, seed=0, job="keep"))
    loop.add(picture(network, seed=1, job="drop"))
    for _ in range(3):
        loop.turn()
    (dropped,) = loop.drop("drop")
    assert dropped.estimate is not None
    torch.testing.assert_close(finish(loop)[0], alone(seed=0), rtol=1e-5, atol=1e-5)


def test_only_the_job_whose_rows_break_the_network_fails() -> None:
    def breaks_on_job_1(x: Tensor, sigma: Tensor, told: Conditioning) -> Tensor:
        if (told.states.mean(dim=(1, 2)) - 0.2).abs().min() < 1e-6:
            raise RuntimeError("bad row")
        return Network()(x, sigma, told)

    loop, failed, ended = DenoiseLoop(), [], []
    for seed in range(3):
        loop.add(picture(breaks_on_job_1, seed=seed, job=str(seed), scale=1.0))
    while (turn := loop.turn()) is not None:
        failed += [p.job_id for p, _ in turn.failed]
        ended += [p.job_id for p, _ in turn.ended]
    assert failed == ["1"]
    assert sorted(ended) == ["0", "2"]


def test_a_network_that_overflows_fails_at_the_evaluation_where_it_did() -> None:
    def overflows(x: Tensor, sigma: Tensor, told: Conditioning) -> Tensor:
        return torch.where(sigma.view(-1, 1, 1, 1) < 1, torch.nan, x)

    loop = DenoiseLoop()
    loop.add(picture(overflows, steps=10))
    while not (turn := loop.turn()).failed:  # type: ignore[union-attr]
        pass
    error = turn.failed[0][1]  # type: ignore[union-attr]
    assert isinstance(error, GenerationFailed)
    assert "not finite at evaluation 7 of 10" in error.message
    assert len(loop) == 0


def test_buckets_share_the_device_by_time_not_by_turns() -> None:
    shares: BucketShares[str] = BucketShares()
    turns = {"small": 0, "large": 0}
    for _ in range(400):
        key = shares.next(["small", "large"])
        turns[key] += 1
        shares.charge(key, 1.0 if key == "small" else 4.0)
    assert turns["small"] == pytest.approx(4 * turns["large"], rel=0.05)


def test_a_bucket_that_was_away_does_not_catch_up() -> None:
    shares: BucketShares[str] = BucketShares()
    for _ in range(100):
        shares.charge(shares.next(["a"]), 1.0)
    served = []
    for _ in range(10):
        served.append(shares.next(["a", "b"]))
        shares.charge(served[-1], 1.0)
    assert served.count("b") == 5


@pytest.mark.parametrize(("knee", "expected"), [(2, 2), (8, 8), (64, 32)])
def test_the_tuner_finds_the_width_from_which_rows_get_no_cheaper(knee: int, expected: int) -> None:
    tuner = WidthTuner(32)
    for _ in range(40):
        width = tuner.width(32)
        tuner.record(width, max(width, knee) * 0.01)
    assert tuner.width(32) == expected


def test_the_tuner_never_waits_for_more_rows_than_there_are() -> None:
    assert WidthTuner(32).width(1) == 1


def relay(network: Network, first: RowSteps, errand: Callable[[Tensor], Tensor], *, then: int) -> RowSteps:
    """Run one picture's steps, an errand on its latents, and `then` further asks about what it brought."""
    latents = yield from first
    (brought,) = yield Errand(lambda: errand(latents))
    target, told = Target("m", network), Conditioning(torch.zeros(3, 6))
    for _ in range(then):
        (brought,) = yield [Row(brought, 1.0, told, target)]
    return brought


def one_errand(*, then: int) -> LivePicture:
    first = picture(Network(), steps=2, scale=1.0)._steps
    steps = relay(Network(), first, lambda latents: latents.repeat(1, 2, 1), then=then)
    return LivePicture(job_id="job", index=0, steps=steps, evaluations=2 + then, codec=NO_CODEC)


def test_a_picture_on_an_errand_goes_on_with_what_it_brought() -> None:
    loop = DenoiseLoop()
    loop.add(one_errand(then=1))
    loop.turn()
    turn = loop.turn()
    assert turn is not None
    (away,) = turn.errands
    assert loop.turn() is None, "nothing to do while the errand is run"
    assert away.errand is not None
    loop.resume(away, away.errand.run())
    (latents,) = finish(loop).values()
    assert latents.shape == (4, 16, 8)


def test_an_errand_may_be_the_last_thing_a_picture_needs() -> None:
    loop = DenoiseLoop()
    loop.add(one_errand(then=0))
    loop.turn()
    (away,) = loop.turn().errands  # type: ignore[union-attr]
    loop.resume(away, torch.ones(4, 2, 2))
    assert torch.equal(finish(loop)[0], torch.ones(4, 2, 2))


def test_a_picture_dropped_on_its_errand_does_not_come_back() -> None:
    loop = DenoiseLoop()
    loop.add(one_errand(then=1))
    loop.turn()
    (away,) = loop.turn().errands  # type: ignore[union-attr]
    assert loop.drop("job") == [away]
    loop.resume(away, torch.ones(4, 2, 2))
    assert loop.turn() is None


def test_a_picture_without_steps_ends_at_the_next_turn() -> None:
    def nothing_to_do() -> RowSteps:
        return torch.zeros(4, 2, 2)
        yield []

    loop = DenoiseLoop()
    loop.add(LivePicture(job_id="job", index=3, steps=nothing_to_do(), evaluations=1, codec=NO_CODEC))
    assert list(finish(loop)) == [3]
