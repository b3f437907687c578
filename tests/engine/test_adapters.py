"""LoRAs act as if they were merged into the weights, in every format, and misfits are refused with a reason."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sfumato.core.errors import UnusableAddOn
from sfumato.engine.adapters.deltas import LowRank, Misfit, delta_of, stacked
from sfumato.engine.adapters.files import Adapter, AdapterSet, combine, read_lora
from sfumato.engine.adapters.names import original_names, parse_name
from tests.engine import loras, tiny

CPU = torch.device("cpu")


def fitted(*files: tuple[Path, float, float], unet: nn.Module, text: nn.Module | None = None) -> AdapterSet:
    """Fit files with their weights on text encoder and denoiser."""
    networks = {"unet": unet} | ({"text_encoder": text} if text is not None else {})
    adapters = [
        (Adapter(name=path.stem, path=str(path), text_weight=te, denoiser_weight=weight), read_lora(path.stem, path))
        for path, te, weight in files
    ]
    return combine(adapters, networks, torch.float32, CPU)


def noise_of(unet: nn.Module) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    x, context = torch.randn((2, 4, 8, 8), generator=draw), torch.randn((2, 5, tiny.WIDTH), generator=draw)
    output: Tensor = unet(x, torch.tensor([500, 20]), encoder_hidden_states=context).sample
    return output


def states_of(text: nn.Module) -> Tensor:
    output: Tensor = text(torch.tensor([[49406, 320, 1125, 49407]])).last_hidden_state
    return output


def test_a_kohya_lora_acts_as_if_it_were_merged(tmp_path: Path) -> None:
    unet, _, text = tiny.networks()
    file = loras.write_kohya(tmp_path / "a.safetensors", unet, text)
    adapters = fitted((file, 0.5, 0.8), unet=unet, text=text)
    with adapters.on({"unet": unet, "text_encoder": text}):
        noise, states = noise_of(unet), states_of(text)
    plain = noise_of(unet)
    loras.merge_kohya(unet, loras.UNET_LAYERS, 0.8)
    loras.merge_kohya(text, loras.TEXT_LAYERS, 0.5)
    torch.testing.assert_close(noise, noise_of(unet), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(states, states_of(text), rtol=1e-4, atol=1e-5)
    assert (noise - plain).abs().max() > 0.01
    assert adapters.notes == ()


def test_after_the_block_the_network_is_as_before(tmp_path: Path) -> None:
    unet, _, _ = tiny.networks()
    plain = noise_of(unet)
    adapters = fitted((loras.write_kohya(tmp_path / "a.safetensors", unet, None), 1, 1), unet=unet)
    with pytest.raises(ZeroDivisionError), adapters.on({"unet": unet}):
        1 / 0  # noqa: B018
    assert torch.equal(noise_of(unet), plain)


def test_loras_stack(tmp_path: Path) -> None:
    unet, _, _ = tiny.networks()
    one = loras.write_kohya(tmp_path / "one.safetensors", unet, None, seed=0)
    other = loras.write_kohya(tmp_path / "other.safetensors", unet, None, seed=100)
    with fitted((one, 1, 0.5), (other, 1, -0.7), unet=unet).on({"unet": unet}):
        noise = noise_of(unet)
    loras.merge_kohya(unet, loras.UNET_LAYERS, 0.5, seed=0)
    loras.merge_kohya(unet, loras.UNET_LAYERS, -0.7, seed=100)
    torch.testing.assert_close(noise, noise_of(unet), rtol=1e-4, atol=1e-5)


def test_low_rank_changes_of_one_layer_become_one() -> None:
    layer = nn.Linear(6, 5, bias=False)
    deltas = [
        delta_of(layer, dict(zip(("down", "up"), loras.factors(layer, seed), strict=True)), 1.0) for seed in (1, 2)
    ]
    (one,) = stacked(deltas)
    x = torch.randn(3, 6)
    torch.testing.assert_close(one.of(layer, x), sum(delta.of(layer, x) for delta in deltas))


def test_a_weight_of_zero_leaves_a_component_alone(tmp_path: Path) -> None:
    unet, _, text = tiny.networks()
    file = loras.write_kohya(tmp_path / "a.safetensors", unet, text)
    adapters = fitted((file, 0.0, 1.0), unet=unet, text=text)
    assert adapters.deltas["text_encoder"] == {}
    assert len(adapters.deltas["unet"]) == len(loras.UNET_LAYERS)


def test_layers_under_the_original_repositorys_names_are_found(tmp_path: Path) -> None:
    unet, _, _ = tiny.networks()
    layers = [name for name, module in unet.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    names = original_names(layers)
    theirs = {name.removesuffix(".weight") for name in tiny.ldm_unet(unet)}
    assert {names[layer] for layer in layers} <= theirs
    file = loras.write_kohya(tmp_path / "a.safetensors", unet, None, names=names)
    with fitted((file, 1, 1), unet=unet).on({"unet": unet}):
        noise = noise_of(unet)
    loras.merge_kohya(unet, loras.UNET_LAYERS, 1.0)
    torch.testing.assert_close(noise, noise_of(unet), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [tiny.SD1, tiny.SD2, tiny.SDXL, tiny.REFINER])
def test_original_names_are_those_of_the_checkpoints_tensors(kind: tiny.Kind) -> None:
    unet, _, _ = tiny.networks_of(kind)
    layers = [name for name, module in unet.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    state = unet.state_dict()
    by_pointer = {tensor.data_ptr(): name.removesuffix(".weight") for name, tensor in tiny.ldm_unet(unet).items()}
    assert original_names(layers) == {path: by_pointer[state[f"{path}.weight"].data_ptr()] for path in layers}


def test_a_lora_of_xl_changes_both_text_encoders(tmp_path: Path) -> None:
    unet, _, texts = tiny.networks_of(tiny.SDXL)
    layer = loras.TEXT_LAYERS[0]
    tensors: dict[str, Tensor] = {}
    for number, text in enumerate(texts.values(), start=1):
        down, up = loras.factors(loras.layer_of(text, layer), number)
        stem = f"lora_te{number}_text_model_{layer.replace('.', '_')}"
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    save_file(tensors, tmp_path / "xl.safetensors")
    adapter = Adapter(name="xl", path="", text_weight=0.7, denoiser_weight=1.0)
    networks = {"unet": unet, **texts}
    adapters = combine([(adapter, read_lora("xl", tmp_path / "xl.safetensors"))], networks, torch.float32, CPU)
    tokens = torch.tensor([[49406, 320, 1125, 49407]])
    with adapters.on(networks):
        states = [text(tokens, output_hidden_states=True).hidden_states[-1] for text in texts.values()]
    for number, text in enumerate(texts.values(), start=1):
        loras.merge(text, layer, *loras.factors(loras.layer_of(text, layer), number), 0.7)
        merged = text(tokens, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(states[number - 1], merged, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
        ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
        ("base_model.model.unet.{}.lora_A.default.weight", "base_model.model.unet.{}.lora_B.default.weight"),
        ("unet.{}.lora_linear_layer.down.weight", "unet.{}.lora_linear_layer.up.weight"),
        ("{}.lora_A.weight", "{}.lora_B.weight"),
    ],
)
def test_a_diffusers_lora_acts_as_if_it_were_merged(tmp_path: Path, down: str, up: str) -> None:
    unet, _, _ = tiny.networks()
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
    tensors = dict(
        zip((down.format(layer), up.format(layer)), loras.factors(loras.layer_of(unet, layer), 5), strict=True)
    )
    save_file(tensors, tmp_path / "a.safetensors")
    with fitted((tmp_path / "a.safetensors", 1, 0.6), unet=unet).on({"unet": unet}):
        noise = noise_of(unet)
    loras.merge(unet, layer, *loras.factors(loras.layer_of(unet, layer), 5), 0.6)  # alpha equals the rank
    torch.testing.assert_close(noise, noise_of(unet), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "layer", "leaf"),
    [
        (
            "down_blocks.0.attentions.1.transformer_blocks.0.attn1.processor.to_out_lora.up.weight",
            "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
            "up",
        ),
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", "encoder.layers.0.mlp.fc1", "down"),
        ("lora_te2_text_model_encoder_layers_3_mlp_fc2.alpha", "encoder_layers_3_mlp_fc2", "alpha"),
        ("lora_unet_mid_block_attentions_0_proj_in.lora_mid.weight", "mid_block_attentions_0_proj_in", "mid"),
        ("lora_unet_x.dora_scale", "x", "magnitude"),
    ],
)
def test_names_of_every_scheme_are_read(name: str, layer: str, leaf: str) -> None:
    parsed = parse_name(name)
    assert parsed is not None
    assert (parsed[0].layer, parsed[1]) == (layer, leaf)


@pytest.mark.parametrize(
    "name", ["weight", "transformer.blocks.0.lora_A.weight", "lora_unet_x.strange", "unet.lora_A.weight"]
)
def test_other_names_are_not(name: str) -> None:
    assert parse_name(name) is None


def test_diffusers_alpha_is_read_from_the_header(tmp_path: Path) -> None:
    unet, _, _ = tiny.networks()
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
    down, up = loras.factors(loras.layer_of(unet, layer), 5)
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": loras.RANK, "unet.lora_alpha": 8})}
    save_file(
        {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}, tmp_path / "a.safetensors", metadata
    )
    adapters = fitted((tmp_path / "a.safetensors", 1, 1), unet=unet)
    ((delta,),) = adapters.deltas["unet"].values()
    assert isinstance(delta, LowRank)
    torch.testing.assert_close(delta.up, up * 8 / loras.RANK)


LAYERS = [nn.Linear(12, 8), nn.Conv2d(12, 8, 3, stride=2, padding=1), nn.Conv2d(12, 8, 1)]


def given(layer: nn.Linear | nn.Conv2d) -> Tensor:
    return torch.randn(2, 12) if isinstance(layer, nn.Linear) else torch.randn(2, 12, 6, 6)


def changed(layer: nn.Linear | nn.Conv2d, weight: Tensor, x: Tensor) -> Tensor:
    """Return what a layer answers more, once `weight` is merged into it."""
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, weight.reshape(layer.weight.shape))
    merged = weight.reshape(layer.weight.shape)
    return nn.functional.conv2d(x, merged, None, layer.stride, layer.padding)  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", LAYERS)
def test_hadamard_products_are_whole_weights(layer: nn.Linear | nn.Conv2d) -> None:
    out, inputs = layer.weight.shape[0], layer.weight[0].numel()
    a1, b1, a2, b2 = (torch.randn(shape) for shape in ((out, 3), (3, inputs), (out, 3), (3, inputs)))
    loha = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "alpha": torch.tensor(1.5)}
    x = given(layer)
    expected = changed(layer, (a1 @ b1) * (a2 @ b2) * 0.5, x)
    torch.testing.assert_close(delta_of(layer, loha, 1.0).of(layer, x), expected, rtol=1e-4, atol=1e-4)


def blocks(w1: Tensor, w2: Tensor) -> Tensor:
    """Return the Kronecker product block by block: block (i, j) is w1[i, j] w2."""
    return torch.cat([torch.cat([w * w2 for w in row], dim=1) for row in w1])


@pytest.mark.parametrize("layer", LAYERS)
def test_kronecker_products_are_whole_weights(layer: nn.Linear | nn.Conv2d) -> None:
    w1, w2 = torch.randn(4, 3), torch.randn(2, 4, *layer.weight.shape[2:])
    x = given(layer)
    delta = delta_of(layer, {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(9.0)}, 1.0)
    torch.testing.assert_close(delta.of(layer, x), changed(layer, blocks(w1, w2), x), rtol=1e-4, atol=1e-4)


def test_factored_kronecker_products_are_scaled_by_alpha_over_rank() -> None:
    layer, x = nn.Linear(12, 8), torch.randn(2, 12)
    w1, a, b = torch.randn(4, 3), torch.randn(2, 2), torch.randn(2, 4)
    delta = delta_of(layer, {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.0)}, 1.0)
    torch.testing.assert_close(delta.of(layer, x), changed(layer, blocks(w1, a @ b) / 2, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_whole_differences_are_added(layer: nn.Linear | nn.Conv2d) -> None:
    diff, bias, x = torch.randn(layer.weight.shape), torch.randn(8), given(layer)
    delta = delta_of(layer, {"diff": diff, "diff_b": bias}, 0.5)
    expected = changed(layer, diff, x) / 2 + (bias / 2).view(1, 8, *[1] * (x.ndim - 2))
    torch.testing.assert_close(delta.of(layer, x), expected, rtol=1e-4, atol=1e-4)
    only_bias = delta_of(layer, {"diff_b": bias}, 1.0).of(layer, x)
    torch.testing.assert_close(layer(x) + only_bias, layer(x) + bias.view(1, 8, *[1] * (x.ndim - 2)))


def test_a_kernel_between_two_matrices_is_one_convolution() -> None:
    layer = nn.Conv2d(12, 8, 3, stride=2, padding=1)
    down, mid, up = torch.randn(4, 12, 1, 1), torch.randn(4, 4, 3, 3), torch.randn(8, 4, 1, 1)
    x = given(layer)
    conv = nn.functional.conv2d
    expected = conv(conv(conv(x, down), mid, stride=2, padding=1), up) * 0.25
    delta = delta_of(layer, {"down": down, "mid": mid, "up": up, "alpha": torch.tensor(1.0)}, 1.0)
    torch.testing.assert_close(delta.of(layer, x), expected, rtol=1e-4, atol=1e-4)


def test_a_smaller_rank_keeps_the_first_ones() -> None:
    layer = nn.Linear(12, 8)
    down, up = loras.factors(layer, 0)
    x = given(layer)
    expected = changed(layer, up[:, :2] @ down[:2], x)
    torch.testing.assert_close(delta_of(layer, {"down": down, "up": up}, 1.0, rank=2).of(layer, x), expected)


@pytest.mark.parametrize(
    ("factors", "reason"),
    [
        ({"down": torch.zeros(2, 12), "up": torch.zeros(9, 2)}, "9x12, not of 8x12"),
        ({"down": torch.zeros(2, 11), "up": torch.zeros(8, 2)}, "8x11, not of 8x12"),
        ({"down": torch.zeros(3, 12), "up": torch.zeros(8, 2)}, "not of"),
        ({"up": torch.zeros(8, 2)}, "down is missing"),
        ({"down": torch.zeros(2, 12)}, "only down"),
        ({"diff": torch.zeros(3, 4)}, "3x4, not of 8x12"),
        ({"lokr_w1": torch.zeros(3, 4), "lokr_w2": torch.zeros(3, 4)}, "not of 8x12"),
        ({"hada_w1_a": torch.zeros(8, 2), "hada_w1_b": torch.zeros(3, 12)}, "do not fit|missing"),
        ({"down": torch.zeros(2, 12), "up": torch.zeros(8, 2), "magnitude": torch.zeros(1)}, "DoRA"),
    ],
)
def test_factors_that_do_not_fit_are_refused(factors: dict[str, Tensor], reason: str) -> None:
    with pytest.raises(Misfit, match=reason):
        delta_of(nn.Linear(12, 8), factors, 1.0)


def test_a_lora_of_another_family_is_refused_with_its_name_and_the_layer(tmp_path: Path) -> None:
    unet, _, _ = tiny.networks()
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{stem}.lora_down.weight": torch.zeros(4, 2048), f"{stem}.lora_up.weight": torch.zeros(32, 4)}
    save_file(tensors, tmp_path / "big.safetensors")
    with pytest.raises(UnusableAddOn, match=r"The LoRA big does not fit this model.*attn2_to_k.*32x2048, not of 32x32"):
        fitted((tmp_path / "big.safetensors", 1, 1), unet=unet)


def test_a_lora_whose_layers_are_all_unknown_is_refused(tmp_path: Path) -> None:
    unet, _, _ = tiny.networks()
    tensors = {"lora_unet_double_blocks_0.lora_down.weight": torch.zeros(4, 8)}
    save_file(tensors, tmp_path / "flux.safetensors")
    with pytest.raises(UnusableAddOn, match="none of the layers"):
        fitted((tmp_path / "flux.safetensors", 1, 1), unet=unet)


def test_layers_that_a_model_lacks_are_passed_over_and_noted(tmp_path: Path) -> None:
    unet, _, text = tiny.networks()
    file = loras.write_kohya(tmp_path / "a.safetensors", unet, text)
    (note,) = fitted((file, 1, 1), unet=unet).notes
    assert note == "2 of the 16 layers of the LoRA a are not in this model."


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _pickle(path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, path)


def _cut_off(path: Path) -> None:
    save_file({"lora_unet_x.lora_up.weight": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-50])


def _something_else(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path)


@pytest.mark.parametrize("write", [_nothing, _pickle, _cut_off, _something_else])
def test_damaged_files_pickles_and_other_things_are_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "bad.safetensors")
    with pytest.raises(UnusableAddOn, match="bad"):
        read_lora("bad", tmp_path / "bad.safetensors")
