"""CLIP text transformers in the original checkpoints' layouts, renamed to transformers' names.

Stable Diffusion 1 and XL's first tower keep OpenAI's CLIP as transformers saves it; Stable Diffusion 2 and XL's
second tower keep OpenCLIP's own names (Ilharco et al. 2021), with query, key and value in one matrix.
"""

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor

_FRAME = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_FUSED = ("q_proj", "k_proj", "v_proj")
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)$")
_HEAD_WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class Tower:
    """A text transformer's configuration and tensors; `projection` (P, width) makes its summary, where it has one."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    projection: Tensor | None = None


def openai_tower(tensors: dict[str, Tensor], stem: str) -> Tower:
    """Read a tower saved by transformers; early checkpoints leave `text_model.` out of its names."""
    named = {
        name.removeprefix(stem).removeprefix("text_model."): tensor
        for name, tensor in tensors.items()
        if name.startswith(stem) and not name.endswith("position_ids")
    }
    return Tower(config=_config(named, "quick_gelu"), tensors=named)


def open_clip_tower(tensors: dict[str, Tensor], stem: str, *, layers_left_out: int = 0) -> Tower:
    """Read a tower in OpenCLIP's names, without the last `layers_left_out` layers."""
    own = {name.removeprefix(stem): tensor for name, tensor in tensors.items() if name.startswith(stem)}
    layers = len({match[1] for name in own if (match := _LAYER.match(name))}) - layers_left_out
    named = {new: own[old] for old, new in _FRAME.items()}
    for name, tensor in own.items():
        if (match := _LAYER.match(name)) and int(match[1]) < layers:
            named |= _renamed(f"encoder.layers.{match[1]}", match[2], match[3], tensor)
    projection = own.get("text_projection")  # used as x @ projection; a Linear's weight is its transpose
    if projection is not None:
        projection = projection.t().contiguous()
    return Tower(config=_config(named, "gelu"), tensors=named, projection=own.get("text_projection.weight", projection))


def _renamed(layer: str, part: str, leaf: str, tensor: Tensor) -> dict[str, Tensor]:
    if part == "attn.in_proj":
        return {
            f"{layer}.self_attn.{name}.{leaf}": share.contiguous()
            for name, share in zip(_FUSED, tensor.chunk(3), strict=True)
        }
    return {f"{layer}.{_IN_LAYER[part]}.{leaf}": tensor}


def _config(tensors: dict[str, Tensor], activation: str) -> dict[str, Any]:
    vocabulary, width = tensors["embeddings.token_embedding.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": tensors["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": sum(name.endswith(".mlp.fc1.weight") for name in tensors),
        "num_attention_heads": max(width // _HEAD_WIDTH, 1),
        "max_position_embeddings": tensors["embeddings.position_embedding.weight"].shape[0],
        "hidden_act": activation,
    }
