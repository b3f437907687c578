"""Models load from both layouts into the same networks, and damaged ones are refused with a reason."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfumato.core.errors import ModelLoadFailed
from sfumato.core.requests import PromptSyntax
from sfumato.engine.conditioning import Conditioning
from sfumato.engine.device import Device
from sfumato.engine.families.loading import load_model, load_vae
from tests.engine import tiny

FLOAT32 = Device(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_folder(tmp_path_factory.mktemp("tiny"))


def test_denoiser_preconditions_the_network_as_the_variance_preserving_process(folder: Path) -> None:
    model = load_model("tiny", str(folder), FLOAT32)
    unet, _, _ = tiny.networks()
    x, context = torch.randn(2, 4, 8, 8) * 5, torch.randn(2, 77, tiny.WIDTH)
    timesteps = torch.tensor([999, 400])
    sigmas = model.denoiser.levels.sigmas[timesteps]
    alphas_cumprod = (1 / (1 + sigmas**2)).float().view(-1, 1, 1, 1)
    vp = x * alphas_cumprod.sqrt()
    epsilon = unet(vp, timesteps, encoder_hidden_states=context).sample
    x0 = (vp - (1 - alphas_cumprod).sqrt() * epsilon) / alphas_cumprod.sqrt()  # Ho et al. 2020, Eq. 15
    torch.testing.assert_close(model.denoiser.denoise(x, sigmas, Conditioning(context)), x0, rtol=1e-3, atol=1e-3)


def test_single_file_loads_to_the_same_networks_as_the_folder(folder: Path, tmp_path: Path) -> None:
    file = tiny.write_single_file(tmp_path / "tiny.safetensors")
    one, other = load_model("a", str(folder), FLOAT32), load_model("b", str(file), FLOAT32)
    prompt = "a red apple, (shiny:1.2)"
    contexts = [m.prompts.encode(prompt, PromptSyntax.A1111) for m in (one, other)]
    torch.testing.assert_close(*(context.states for context in contexts))
    x, sigma = torch.randn(1, 4, 8, 8), torch.tensor([2.0], dtype=torch.float64)
    torch.testing.assert_close(*(m.denoiser.denoise(x, sigma, Conditioning.stack(contexts[:1])) for m in (one, other)))
    pictures = [m.codec.decode(x).int() for m in (one, other)]
    torch.testing.assert_close(*pictures, atol=1, rtol=0)  # a value half-way between two bytes may fall on either


def test_decoded_pictures_are_eight_times_as_large_as_latents_and_rgb_bytes(folder: Path) -> None:
    pixels = load_model("tiny", str(folder), FLOAT32).codec.decode(torch.randn(1, 4, 8, 16))
    assert pixels.shape == (1, 64, 128, 3)
    assert pixels.dtype == torch.uint8


def test_weights_that_lack_a_tensor_are_refused(folder: Path, tmp_path: Path) -> None:
    broken = tiny.write_folder(tmp_path / "broken")
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["conv_in.weight"]
    save_file(tensors, weights)
    with pytest.raises(ModelLoadFailed, match=r"lack 1, such as conv_in.weight"):
        load_model("broken", str(broken), FLOAT32)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    broken = tiny.write_folder(tmp_path / "broken")
    weights = broken / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadFailed, match="Cannot read"):
        load_model("broken", str(broken), FLOAT32)


def test_pickled_weights_are_not_looked_for(tmp_path: Path) -> None:
    broken = tiny.write_folder(tmp_path / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").rename(broken / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelLoadFailed, match="No safetensors weights"):
        load_model("broken", str(broken), FLOAT32)


def test_unknown_predictions_are_refused(tmp_path: Path) -> None:
    broken = tiny.write_folder(tmp_path / "broken")
    (broken / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "sample"}))
    with pytest.raises(ModelLoadFailed, match="sample"):
        load_model("broken", str(broken), FLOAT32)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "lora.safetensors")
    with pytest.raises(ModelLoadFailed, match="not a whole checkpoint"):
        load_model("lora", str(tmp_path / "lora.safetensors"), FLOAT32)


@pytest.mark.parametrize("stem", ["", "first_stage_model."])
def test_a_vae_of_its_own_stands_in_for_a_models(stem: str, folder: Path, tmp_path: Path) -> None:
    model, latents = load_model("tiny", str(folder), FLOAT32), torch.randn(1, 4, 8, 8)
    _, vae, _ = tiny.networks()
    vae.decoder.conv_out.bias.add_(0.1)
    tensors = {stem + name: tensor.contiguous() for name, tensor in tiny.ldm_vae(vae).items()}
    save_file(tensors, tmp_path / "soft.safetensors")
    vae.save_pretrained(tmp_path / "soft")
    one, other, third = (
        load_vae(str(place), model.codec, FLOAT32)
        for place in (
            tmp_path / "soft.safetensors", tmp_path / "soft", tmp_path / "soft" / "diffusion_pytorch_model.safetensors"
        )
    )  # fmt: skip
    expected = other.decode(latents).int()
    assert not torch.equal(expected, model.codec.decode(latents).int())
    for codec in (one, third):
        torch.testing.assert_close(codec.decode(latents).int(), expected, atol=1, rtol=0)


def test_a_file_without_a_vae_is_refused_as_one(folder: Path, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "odd.safetensors")
    codec = load_model("tiny", str(folder), FLOAT32).codec
    with pytest.raises(ModelLoadFailed, match="holds no VAE"):
        load_vae(str(tmp_path / "odd.safetensors"), codec, FLOAT32)


@pytest.mark.parametrize("data", [b"", b"\x80\x02}q", b"\x00" * 100, b"PK\x03\x04" + bytes(100)])
def test_a_damaged_or_pickled_file_fails_to_load_and_nothing_else(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelLoadFailed):
        load_model("m", str(path), FLOAT32)


@pytest.mark.parametrize(
    ("part", "text"),
    [("tokenizer/tokenizer.json", "{"), ("unet/config.json", '{"block_out_channels": 3}'), ("vae/config.json", "[]")],
)
def test_a_damaged_part_of_a_folder_fails_to_load_and_nothing_else(part: str, text: str, tmp_path: Path) -> None:
    broken = tiny.write_folder(tmp_path / "broken")
    (broken / part).write_text(text)
    with pytest.raises(ModelLoadFailed):
        load_model("broken", str(broken), FLOAT32)


def test_weights_in_several_files_load_as_one(folder: Path, tmp_path: Path) -> None:
    parted = tiny.write_folder(tmp_path / "parted")
    weights = parted / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    weights.unlink()
    place = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(tensors)}
    for file in set(place.values()):
        save_file({name: tensor for name, tensor in tensors.items() if place[name] == file}, parted / "unet" / file)
    index = parted / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": place}))
    one, other = (load_model("m", str(each), FLOAT32).networks["unet"].state_dict() for each in (folder, parted))
    assert all(torch.equal(one[name], other[name]) for name in one)
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(ModelLoadFailed, match="names no files beside it"):
        load_model("m", str(parted), FLOAT32)
