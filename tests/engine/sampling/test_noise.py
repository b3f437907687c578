"""Noise streams: the published Philox vector, and independence of everything but the seed."""

import math

import numpy as np
import pytest
import torch

from sfumato.core.requests import NoiseSource, SeedResize, Variation
from sfumato.engine.sampling.brownian import BrownianTree
from sfumato.engine.sampling.noise import (
    PictureNoise,
    noise_stream,
    paste_centrally,
    philox4x32,
    philox_normal,
    slerp,
)
from tests.factories import make_request

SHAPE = (4, 8, 6)

CUDA_SEED_0 = [
    [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
    [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
    [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
]


def test_nv_noise_is_the_published_vector_to_the_last_digit_printed() -> None:
    np.testing.assert_allclose(philox_normal(0, 0, 12).reshape(3, 4), CUDA_SEED_0, rtol=1e-7)


def test_philox_gives_the_known_answers_of_its_authors() -> None:
    """Random123's kat_vectors for philox4x32-10: all zeros, and all ones."""
    zeros = philox4x32(np.zeros((4, 1), dtype=np.uint32), (0, 0))
    assert [hex(x) for x in zeros[:, 0]] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    ones = philox4x32(np.full((4, 1), 0xFFFFFFFF, dtype=np.uint32), (0xFFFFFFFF, 0xFFFFFFFF))
    assert [hex(x) for x in ones[:, 0]] == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]


def test_cpu_noise_is_pytorchs_own() -> None:
    stream = noise_stream(NoiseSource.CPU, 42, (4, 8, 8))
    generator = torch.Generator().manual_seed(42)
    for _ in range(2):
        assert torch.equal(stream(), torch.randn(4, 8, 8, generator=generator))


def test_draws_of_a_stream_differ_and_repeat_with_the_seed() -> None:
    for source in NoiseSource:
        one, other = noise_stream(source, 2**40 + 7, (4, 8, 8)), noise_stream(source, 2**40 + 7, (4, 8, 8))
        first, second = one(), one()
        assert not torch.equal(first, second)
        assert torch.equal(first, other())
        assert torch.equal(second, other())


def test_nv_noise_is_standard_normal() -> None:
    noise = philox_normal(123, 5, 1_000_000)
    assert abs(float(noise.mean())) < 0.005
    assert abs(float(noise.std()) - 1) < 0.005


def test_the_gpus_numbers_are_nvs() -> None:
    assert torch.equal(noise_stream(NoiseSource.GPU, 9, SHAPE)(), noise_stream(NoiseSource.NV, 9, SHAPE)())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nv_noise_is_what_cuda_draws() -> None:
    generator = torch.Generator("cuda").manual_seed(1234567890123)
    ours = noise_stream(NoiseSource.NV, 1234567890123, (4, 128, 128))
    for _ in range(3):
        theirs = torch.randn((4, 128, 128), generator=generator, device="cuda").cpu()
        torch.testing.assert_close(ours(), theirs, rtol=1e-5, atol=1e-6)


def test_picture_i_draws_what_the_request_for_seed_plus_i_draws() -> None:
    one, other = PictureNoise(make_request(seed=5), 2, SHAPE), PictureNoise(make_request(seed=7), 0, SHAPE)
    assert torch.equal(one.start, other.start)
    assert torch.equal(one(), other())
    assert torch.equal(one.brownian([3.0, 1.0, 0.0])(3.0, 2.0), other.brownian([3.0, 1.0])(3.0, 2.0))


def test_a_variation_turns_the_seeds_noise_towards_the_subseeds() -> None:
    def start(strength: float, index: int = 0) -> torch.Tensor:
        request = make_request(seed=5, variation=Variation(subseed=90, strength=strength), image_count=3)
        return PictureNoise(request, index, SHAPE).start

    torch.testing.assert_close(start(0.0), noise_stream(NoiseSource.GPU, 5, SHAPE)())
    torch.testing.assert_close(start(1.0), noise_stream(NoiseSource.GPU, 90, SHAPE)())
    torch.testing.assert_close(start(1.0, 2), noise_stream(NoiseSource.GPU, 92, SHAPE)())


def test_slerp_keeps_to_the_great_circle_of_each_column() -> None:
    one, other = (torch.tensor([[[math.cos(a)], [math.sin(a)]]]) for a in (0.3, 1.5))
    found = slerp(one, other, 0.25)
    assert float(torch.atan2(found[0, 1, 0], found[0, 0, 0])) == pytest.approx(0.6)
    assert float(found.norm()) == pytest.approx(1.0)


def test_slerp_of_noise_with_itself_is_itself() -> None:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(slerp(noise, noise, 0.4), noise)


def test_seed_resize_puts_the_small_pictures_noise_in_the_middle() -> None:
    request = make_request(seed=5, width=48, height=64, seed_resize=SeedResize(width=32, height=48))
    found = PictureNoise(request, 0, SHAPE).start
    small, full = (noise_stream(NoiseSource.GPU, 5, shape)() for shape in ((4, 6, 4), SHAPE))
    assert torch.equal(found[:, 1:7, 1:5], small)
    assert torch.equal(found[:, 0], full[:, 0])


def test_seed_resize_varies_the_small_noise() -> None:
    variation, resize = Variation(subseed=90, strength=1.0), SeedResize(width=32, height=48)
    found = PictureNoise(make_request(seed=5, variation=variation, seed_resize=resize), 0, SHAPE).start
    torch.testing.assert_close(found[:, 1:7, 1:5], noise_stream(NoiseSource.GPU, 90, (4, 6, 4))())


def test_noise_larger_than_the_picture_is_cropped_to_its_middle() -> None:
    large = torch.arange(64.0).view(1, 8, 8)
    assert torch.equal(paste_centrally(large, torch.zeros(1, 4, 10))[:, :, 1:9], large[:, 2:6])


def test_a_seed_delta_changes_all_noise_but_the_first() -> None:
    plain, shifted = (PictureNoise(make_request(seed=5, eta_seed_delta=d), 0, SHAPE) for d in (0, 31337))
    assert torch.equal(plain.start, shifted.start)
    assert not torch.equal(plain(), shifted())
    again = PictureNoise(make_request(seed=5, eta_seed_delta=31337), 0, SHAPE)
    assert torch.equal(again(), noise_stream(NoiseSource.GPU, 5 + 31337, SHAPE)())


def cpu_normals(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))


def test_the_brownian_path_of_a_seed_is_torchsdes() -> None:
    """Unit increments of torchsde 0.2.6's BrownianTree(0.0291675, zeros(2, 3), 14.6146, entropy=5), downwards."""
    tree = BrownianTree(0.0291675, 14.6146, 5, cpu_normals)
    known = {
        (14.6146, 7.3): [0.08347685635089874, 0.0696939155459404, -0.0020918361842632294],
        (7.3, 3.1): [-0.8199175000190735, 0.663863480091095, -0.42546895146369934],
        (3.1, 2.0): [-1.3317720890045166, -0.8971123695373535, 0.9156397581100464],
        (2.0, 0.5): [-0.42371249198913574, -0.5509541630744934, 0.5985682606697083],
        (0.5, 0.0291675): [-1.2006056308746338, -2.465116500854492, 0.36936137080192566],
    }
    for (sigma, sigma_next), values in known.items():
        assert tree.step(sigma, sigma_next).flatten()[:3].tolist() == pytest.approx(values, abs=2e-6)


def test_a_brownian_path_does_not_depend_on_the_questions_asked_before() -> None:
    one, other = (BrownianTree(0.03, 14.6, 8, cpu_normals) for _ in range(2))
    one.step(9.0, 4.0)
    one.step(3.0, 1.7)
    torch.testing.assert_close(one.at(2.5), other.at(2.5))


def test_brownian_increments_add_up_and_have_unit_variance_when_scaled() -> None:
    tree = BrownianTree(0.03, 14.6, 8, lambda seed: torch.randn(20_000, generator=torch.Generator().manual_seed(seed)))
    whole = tree.at(9.0) - tree.at(2.0)
    torch.testing.assert_close(whole, (tree.at(9.0) - tree.at(5.0)) + (tree.at(5.0) - tree.at(2.0)))
    early, late = tree.step(9.0, 5.0), tree.step(5.0, 2.0)
    assert float(early.std()) == pytest.approx(1.0, abs=0.03)
    assert float((early * late).mean()) == pytest.approx(0.0, abs=0.03)
