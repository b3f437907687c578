"""Random LoRA files for the small networks, and those networks with the same change merged in by hand."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

UNET_LAYERS = (
    "conv_in",
    "time_embedding.linear_1",
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.0.resnets.1.time_emb_proj",
    "down_blocks.0.attentions.1.proj_in",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
    "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "down_blocks.0.downsamplers.0.conv",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "mid_block.resnets.1.conv2",
    "up_blocks.0.upsamplers.0.conv",
    "up_blocks.1.resnets.0.conv_shortcut",
    "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_v",
)
TEXT_LAYERS = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1")
ALPHA, RANK = 3.0, 4


def layer_of(network: nn.Module, path: str) -> nn.Linear | nn.Conv2d:
    """Find a layer, whether or not the network's paths begin with `text_model.`"""
    modules = dict(network.named_modules())
    layer = modules.get(path) or modules[f"text_model.{path}"]
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    return layer


def factors(layer: nn.Linear | nn.Conv2d, seed: int, rank: int = RANK) -> tuple[Tensor, Tensor]:
    """Return random `down` (rank, in, ...) and `up` (out, rank, ...) for a layer."""
    draw = torch.Generator().manual_seed(seed)
    out, *rest = layer.weight.shape
    down = torch.randn((rank, *rest), generator=draw) * 0.1
    return down, torch.randn((out, rank, *[1] * (len(rest) - 1)), generator=draw) * 0.1


def merge(network: nn.Module, path: str, down: Tensor, up: Tensor, strength: float) -> None:
    """Add strength * up down to a layer's weight."""
    layer = layer_of(network, path)
    layer.weight += (strength * (up.flatten(1) @ down.flatten(1))).reshape(layer.weight.shape)


def write_kohya(
    path: Path, unet: nn.Module | None, text: nn.Module | None, *, seed: int = 0, names: dict[str, str] | None = None
) -> Path:
    """Write a file as kohya's trainers do; `names` gives a layer of the denoiser another name."""
    tensors: dict[str, Tensor] = {}
    for network, layers, prefix in ((unet, UNET_LAYERS, "lora_unet_"), (text, TEXT_LAYERS, "lora_te_text_model_")):
        for place, layer in enumerate(layers if network is not None else ()):
            assert network is not None
            down, up = factors(layer_of(network, layer), seed + place)
            stem = prefix + (names or {}).get(layer, layer).replace(".", "_")
            tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            tensors[f"{stem}.alpha"] = torch.tensor(ALPHA)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def merge_kohya(network: nn.Module, layers: tuple[str, ...], strength: float, *, seed: int = 0) -> None:
    """Do to a network what `write_kohya` wrote."""
    for place, layer in enumerate(layers):
        down, up = factors(layer_of(network, layer), seed + place)
        merge(network, layer, down, up, strength * ALPHA / RANK)
