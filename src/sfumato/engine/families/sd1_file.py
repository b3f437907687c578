"""Stable Diffusion 1 in one file: the original repository's tensor names, and the configuration they imply.

The widths are read off the tensors, so that any network of this shape loads; what tensors cannot tell (8 attention
heads, the noise schedule) are the published facts of Stable Diffusion 1 (Rombach et al. 2022).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor

from sfumato.core.errors import ModelLoadFailed
from sfumato.engine.families.weights import read_tensors

_UNET = "model.diffusion_model."
_VAE = "first_stage_model."
_TEXT = "cond_stage_model.transformer."
_SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The three networks' configurations and tensors, under diffusers' and transformers' names."""

    unet_config: dict[str, Any]
    unet: dict[str, Tensor]
    vae_config: dict[str, Any]
    vae: dict[str, Tensor]
    text_config: dict[str, Any]
    text: dict[str, Tensor]
    scheduler_config: dict[str, Any]


def read_parts(path: Path) -> Parts:
    """Read and rename a checkpoint's tensors; raises `ModelLoadFailed` if it is not Stable Diffusion 1."""
    tensors = read_tensors(path)
    for prefix in (_UNET, _VAE, _TEXT):
        if not any(name.startswith(prefix) for name in tensors):
            raise ModelLoadFailed(f"{path} is not a whole Stable Diffusion 1 checkpoint: it has no {prefix}* tensors.")
    try:
        unet_config, vae_config, text_config = _unet_config(tensors), _vae_config(tensors), _text_config(tensors)
        text = {n.removeprefix(_TEXT): t for n, t in tensors.items() if n.startswith(_TEXT)}
        unet = convert_ldm_unet_checkpoint(dict(tensors), config=unet_config)
        vae = convert_ldm_vae_checkpoint(dict(tensors), config=vae_config)
    except (KeyError, IndexError, ValueError) as error:
        raise ModelLoadFailed(f"{path} is not laid out as Stable Diffusion 1: {error!r}.") from error
    return Parts(
        unet_config=unet_config,
        unet=unet,
        vae_config=vae_config,
        vae=vae,
        text_config=text_config,
        text=text,
        scheduler_config=_SCHEDULER,
    )


def modern_vae_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the mid-block attention of autoencoders saved before diffusers 0.15."""
    renamed = {}
    for name, tensor in tensors.items():
        head, dot, leaf = name.rpartition(".")
        stem, sep, layer = head.rpartition(".")
        if ".attentions." in name and layer in _OLD_VAE_ATTENTION:
            name = f"{stem}{sep}{_OLD_VAE_ATTENTION[layer]}{dot}{leaf}"
        renamed[name] = tensor
    return renamed


def _levels_of(tensors: dict[str, Tensor], pattern: str) -> int:
    """Count the consecutive numbers for which the pattern names a tensor."""
    count = 0
    while pattern.format(count) in tensors:
        count += 1
    return count


def _unet_config(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Read the denoiser's shape off its input blocks: a level is some residual blocks and a downsampler."""
    stem = tensors[_UNET + "input_blocks.0.0.weight"]
    widths: list[int] = []
    attends: list[bool] = []
    layers = 0
    number = 1
    while True:
        per_level = 0
        while (key := f"{_UNET}input_blocks.{number}.0.out_layers.3.weight") in tensors:
            width = tensors[key].shape[0]
            attention = f"{_UNET}input_blocks.{number}.1.norm.weight" in tensors
            number, per_level = number + 1, per_level + 1
        if not per_level:
            break
        widths.append(width)
        attends.append(attention)
        layers = per_level
        number += 1  # the downsampler
    cross = next(t.shape[1] for n, t in tensors.items() if n.startswith(_UNET) and n.endswith("attn2.to_k.weight"))
    return {
        "sample_size": 64,
        "in_channels": stem.shape[1],
        "out_channels": tensors[_UNET + "out.2.weight"].shape[0],
        "block_out_channels": tuple(widths),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        "layers_per_block": layers,
        "cross_attention_dim": cross,
        "attention_head_dim": 8,  # diffusers' old name: the number of heads
        "use_linear_projection": False,
        "num_class_embeds": None,
        "class_embed_type": None,
        "addition_embed_type": None,
    }


def _vae_config(tensors: dict[str, Tensor]) -> dict[str, Any]:
    levels = _levels_of(tensors, _VAE + "encoder.down.{}.block.0.conv1.weight")
    widths = tuple(tensors[f"{_VAE}encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(levels))
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": tensors[_VAE + "post_quant_conv.weight"].shape[0],
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": _levels_of(tensors, _VAE + "encoder.down.0.block.{}.conv1.weight"),
        "norm_num_groups": 32,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    }


def _text_config(tensors: dict[str, Tensor]) -> dict[str, Any]:
    embeddings = tensors[_TEXT + "text_model.embeddings.token_embedding.weight"]
    layer = _TEXT + "text_model.encoder.layers.{}.mlp.fc1.weight"
    width = embeddings.shape[1]
    return {
        "vocab_size": embeddings.shape[0],
        "hidden_size": width,
        "intermediate_size": tensors[layer.format(0)].shape[0],
        "num_hidden_layers": _levels_of(tensors, layer),
        "num_attention_heads": max(width // 64, 1),
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
    }
