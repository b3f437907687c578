"""Pictures to latents and back, against diffusers; and what happens when range or memory run out."""

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderDC
from torch import Tensor

from sfumato.core.errors import GenerationFailed
from sfumato.engine.families import autoencoder
from sfumato.engine.families.autoencoder import Autoencoder
from sfumato.engine.families.base import LatentCodec
from tests.engine import tiny

SCALE, SHIFT = 0.18215, 0.5
CPU = torch.device("cpu")


def codec(network: object, dtype: torch.dtype = torch.float32) -> LatentCodec:
    return LatentCodec(Autoencoder(network, dtype=dtype, device=CPU), scaling_factor=SCALE, shift_factor=SHIFT)


def pictures(seed: int = 3) -> Tensor:
    return torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_encoding_gives_the_mean_of_diffusers_distribution() -> None:
    _, vae, _ = tiny.networks()
    latents = codec(vae).encode(pictures())
    posterior = vae.encode(pictures().permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
    torch.testing.assert_close(latents, (posterior.mode() - SHIFT) * SCALE)


def test_encoding_with_noise_gives_a_sample_of_diffusers_distribution() -> None:
    _, vae, _ = tiny.networks()
    noise = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    posterior = vae.encode(pictures().permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
    theirs = posterior.sample(torch.Generator().manual_seed(1))
    torch.testing.assert_close(codec(vae).encode(pictures(), noise), (theirs - SHIFT) * SCALE)


def test_an_autoencoder_without_chance_encodes_the_same_with_noise() -> None:
    vae = AutoencoderDC(
        latent_channels=4, attention_head_dim=8, encoder_block_out_channels=(8, 16), decoder_block_out_channels=(8, 16),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), encoder_block_types="ResBlock",
        decoder_block_types="ResBlock", encoder_qkv_multiscales=((), ()), decoder_qkv_multiscales=((), ()),
    ).eval()  # fmt: skip
    one = codec(vae).encode(pictures())
    assert torch.equal(one, codec(vae).encode(pictures(), torch.randn(one.shape)))


def failing_once(method: Callable[..., object], error: Exception) -> Callable[..., object]:
    errors = [error]

    def fail_first(*args: object, **options: object) -> object:
        if errors:
            raise errors.pop()
        return method(*args, **options)

    return fail_first


def test_a_picture_too_large_for_memory_is_decoded_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    _, vae, _ = tiny.networks()
    latents, notes = torch.randn(1, 4, 12, 8), list[str]()
    whole = codec(vae).decode(latents)
    monkeypatch.setattr(vae, "decode", failing_once(vae.decode, torch.OutOfMemoryError("no memory")))
    tiled = codec(vae).decode(latents, notes.append)
    assert notes == [autoencoder.TILED]
    assert whole.shape == tiled.shape


def test_tiles_are_smaller_than_a_picture_that_did_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    _, vae, _ = tiny.networks()
    vae.tile_latent_min_size, vae.tile_sample_min_size = 128, 1024
    monkeypatch.setattr(vae, "encode", failing_once(vae.encode, RuntimeError("can't allocate memory: tried 1 byte")))
    codec(vae).encode(pictures())
    assert (vae.tile_latent_min_size, vae.tile_sample_min_size) == (64, 512)
    assert not vae.use_tiling


def test_a_picture_too_large_even_for_tiles_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    _, vae, _ = tiny.networks()

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(vae, "decode", fail)
    monkeypatch.setattr(vae, "tiled_decode", fail)
    with pytest.raises(torch.OutOfMemoryError):
        codec(vae).decode(torch.randn(1, 4, 8, 8))


def test_an_overflow_is_decoded_again_in_float32_and_the_network_stays_there() -> None:
    _, vae, _ = tiny.networks()
    latents = torch.randn(1, 4, 8, 8)
    expected = codec(vae).decode(latents).int()
    vae.decoder.conv_out.register_forward_hook(lambda _m, _x, out: out if out.dtype is torch.float32 else out * 1e9)
    notes: list[str] = []
    narrow = codec(vae.to(torch.float16), torch.float16)
    pixels = narrow.decode(latents, notes.append)
    assert notes == [autoencoder.WIDENED]
    torch.testing.assert_close(pixels.int(), expected, atol=2, rtol=0)
    narrow.decode(latents, notes.append)
    assert len(notes) == 1


def test_output_that_is_finite_in_no_format_fails() -> None:
    _, vae, _ = tiny.networks()
    with pytest.raises(GenerationFailed, match="not finite"):
        codec(vae).decode(torch.full((1, 4, 8, 8), torch.nan))
