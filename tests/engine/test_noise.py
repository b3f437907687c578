"""Noise streams: the published Philox vector, and independence of everything but the seed."""

import numpy as np
import torch

from sfumato.core.requests import NoiseSource
from sfumato.engine.sampling.noise import noise_stream, philox4x32, philox_normal

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
