"""Checkpoints in one file: the original repositories' tensor names, and the configuration they imply.

The family shows in which text towers there are, and widths are read off the tensors, so that any network of these
shapes loads with no network access. What tensors cannot tell are published facts: Stable Diffusion 1 has 8 attention
heads (Rombach et al. 2022), its successors heads of 64 channels (Podell et al. 2023), all of them one noise schedule.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor

from sfumato.core.errors import ModelLoadFailed
from sfumato.engine.families.base import Prediction
from sfumato.engine.families.clip_file import Tower, open_clip_tower, openai_tower
from sfumato.engine.families.prediction import told_prediction
from sfumato.engine.families.weights import read_tensors

_UNET = "model.diffusion_model."
_VAE = "first_stage_model."
_SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_HEAD_WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A family's layout: the prefixes of its text towers and how each is read, and facts that no tensor tells.

    `prediction` None: both kinds were published in this layout.
    """

    name: str
    towers: dict[str, Callable[[dict[str, Tensor], str], Tower]]
    scaling_factor: float
    heads: int | None = None
    prediction: Prediction | None = Prediction.EPSILON
    time_ids: int = 0


LAYOUTS = (
    Layout(
        name="Stable Diffusion XL",
        towers={
            "conditioner.embedders.0.transformer.": openai_tower,
            "conditioner.embedders.1.model.": open_clip_tower,
        },
        scaling_factor=0.13025,
        time_ids=6,
    ),
    Layout(
        name="the Stable Diffusion XL refiner",
        towers={"conditioner.embedders.0.model.": open_clip_tower},
        scaling_factor=0.13025,
        time_ids=5,
    ),
    Layout(
        name="Stable Diffusion 2",
        # It was trained on the states before the last layer, so that layer is never needed.
        towers={"cond_stage_model.model.": partial(open_clip_tower, layers_left_out=1)},
        scaling_factor=0.18215,
        prediction=None,
    ),
    Layout(
        name="Stable Diffusion 1",
        towers={"cond_stage_model.transformer.": openai_tower},
        scaling_factor=0.18215,
        heads=8,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The networks' configurations and tensors, under diffusers' and transformers' names.

    `prediction` None: nothing in the file tells; it must be measured.
    """

    unet_config: dict[str, Any]
    unet: dict[str, Tensor]
    vae_config: dict[str, Any]
    vae: dict[str, Tensor]
    towers: tuple[Tower, ...]
    scheduler_config: dict[str, Any]
    prediction: Prediction | None


def read_parts(path: Path) -> Parts:
    """Read and rename a checkpoint's tensors; raises `ModelLoadFailed` if it is of no known family."""
    tensors = read_tensors(path)
    layout = _layout_of(path, tensors)
    told = told_prediction(path, tensors)
    try:
        towers = tuple(read(tensors, stem) for stem, read in layout.towers.items())
        unet_config, vae_config = _unet_config(tensors, layout, towers), vae_config_of(tensors, layout.scaling_factor)
        return Parts(
            unet_config=unet_config,
            unet=convert_ldm_unet_checkpoint(dict(tensors), config=unet_config),
            vae_config=vae_config,
            vae=convert_ldm_vae_checkpoint(dict(tensors), config=vae_config),
            towers=towers,
            scheduler_config=_SCHEDULER | told.schedule,
            prediction=told.prediction or layout.prediction,
        )
    except (KeyError, IndexError, ValueError, StopIteration) as error:
        raise ModelLoadFailed(f"{path} is not laid out as {layout.name}: {error!r}.") from error


def read_vae(path: Path, scaling_factor: float) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read an autoencoder's configuration and tensors from a file of its own, or from a whole checkpoint.

    Raises `ModelLoadFailed` when the file holds none.
    """
    tensors = read_tensors(path)
    if "decoder.mid_block.attentions.0.group_norm.weight" in tensors:
        return _diffusers_vae_config(tensors, scaling_factor), tensors
    if any(name.startswith(_VAE) for name in tensors):
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(_VAE)}
    else:
        tensors = {_VAE + name: tensor for name, tensor in tensors.items()}
    try:
        config = vae_config_of(tensors, scaling_factor)
        return config, convert_ldm_vae_checkpoint(tensors, config=config)
    except (KeyError, IndexError, ValueError) as error:
        raise ModelLoadFailed(f"{path} holds no VAE of a known layout: {error!r}.") from error


def _layout_of(path: Path, tensors: dict[str, Tensor]) -> Layout:
    def holds(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in tensors)

    for prefix, part in ((_UNET, "denoiser"), (_VAE, "VAE")):
        if not holds(prefix):
            raise ModelLoadFailed(f"{path} is not a whole checkpoint: it has no {part} ({prefix}*).")
    for layout in LAYOUTS:
        if all(holds(stem) for stem in layout.towers):
            return layout
    raise ModelLoadFailed(f"{path} is not a whole checkpoint: it has no text encoder of a known family.")


def _levels_of(tensors: dict[str, Tensor], pattern: str) -> int:
    """Count the consecutive numbers for which the pattern names a tensor."""
    count = 0
    while pattern.format(count) in tensors:
        count += 1
    return count


def _unet_config(tensors: dict[str, Tensor], layout: Layout, towers: tuple[Tower, ...]) -> dict[str, Any]:
    """Read the denoiser's shape off its input blocks: a level is some residual blocks and a downsampler."""
    widths: list[int] = []
    depths: list[int] = []  # transformer layers of each level's attention, 0 where it has none
    layers = 0
    number = 1
    while True:
        per_level = 0
        while (key := f"{_UNET}input_blocks.{number}.0.out_layers.3.weight") in tensors:
            width, depth = tensors[key].shape[0], _depth(tensors, f"input_blocks.{number}.1")
            number, per_level = number + 1, per_level + 1
        if not per_level:
            break
        widths.append(width)
        depths.append(depth)
        layers = per_level
        number += 1  # the downsampler
    attention = next(n for n in tensors if n.startswith(_UNET) and n.endswith("transformer_blocks.0.attn2.to_k.weight"))
    middle = _depth(tensors, "middle_block.1")
    config = {
        "sample_size": 64,
        "in_channels": tensors[_UNET + "input_blocks.0.0.weight"].shape[1],
        "out_channels": tensors[_UNET + "out.2.weight"].shape[0],
        "block_out_channels": tuple(widths),
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
        "up_block_types": tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)),
        # The middle block has the last level's entry; where that level has no attention, only the middle uses it.
        "transformer_layers_per_block": (*(depth or 1 for depth in depths[:-1]), depths[-1] or middle),
        "layers_per_block": layers,
        "cross_attention_dim": tensors[attention].shape[1],
        # diffusers' old name: the number of heads
        "attention_head_dim": layout.heads or tuple(max(width // _HEAD_WIDTH, 1) for width in widths),
        "use_linear_projection": tensors[attention.partition("transformer_blocks")[0] + "proj_in.weight"].ndim == 2,
        "num_class_embeds": None,
        "class_embed_type": None,
        "addition_embed_type": None,
    }
    return config | _added(tensors, layout, towers)


def _added(tensors: dict[str, Tensor], layout: Layout, towers: tuple[Tower, ...]) -> dict[str, Any]:
    """Read the shape of what is added to the time embedding: a prompt's summary, and each number of the time ids."""
    if not layout.time_ids:
        return {}
    projection = towers[-1].projection
    if projection is None:
        raise ValueError("the text encoder has no text_projection")
    inputs = tensors[_UNET + "label_emb.0.0.weight"].shape[1]
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (inputs - projection.shape[0]) // layout.time_ids,
        "projection_class_embeddings_input_dim": inputs,
    }


def _depth(tensors: dict[str, Tensor], block: str) -> int:
    return _levels_of(tensors, f"{_UNET}{block}.transformer_blocks.{{}}.norm1.weight")


def vae_config_of(tensors: dict[str, Tensor], scaling_factor: float) -> dict[str, Any]:
    """Read an autoencoder's shape off its tensors."""
    levels = _levels_of(tensors, _VAE + "encoder.down.{}.block.0.conv1.weight")
    return _vae_config(
        latent_channels=tensors[_VAE + "post_quant_conv.weight"].shape[0],
        widths=[tensors[f"{_VAE}encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(levels)],
        layers=_levels_of(tensors, _VAE + "encoder.down.0.block.{}.conv1.weight"),
        scaling_factor=scaling_factor,
    )


def _diffusers_vae_config(tensors: dict[str, Tensor], scaling_factor: float) -> dict[str, Any]:
    """Read the same off a file in diffusers' names, saved without its configuration."""
    levels = _levels_of(tensors, "encoder.down_blocks.{}.resnets.0.conv1.weight")
    return _vae_config(
        latent_channels=tensors["post_quant_conv.weight"].shape[0],
        widths=[tensors[f"encoder.down_blocks.{i}.resnets.0.conv2.weight"].shape[0] for i in range(levels)],
        layers=_levels_of(tensors, "encoder.down_blocks.0.resnets.{}.conv1.weight"),
        scaling_factor=scaling_factor,
    )


def _vae_config(*, latent_channels: int, widths: list[int], layers: int, scaling_factor: float) -> dict[str, Any]:
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": latent_channels,
        "block_out_channels": tuple(widths),
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": layers,
        "norm_num_groups": 32,
        "sample_size": 512,
        "scaling_factor": scaling_factor,
    }
