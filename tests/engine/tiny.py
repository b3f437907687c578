"""Small networks of every family's shape with random weights, in both layouts they come in."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sfumato.engine.families.text import shipped_clip_tokenizer

WIDTH = 32
SUMMARY = 16
UNET = {
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 64),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 8,
}
VAE = {
    "latent_channels": 4,
    "block_out_channels": (32, 32, 32, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
TEXT = {
    "vocab_size": 49408,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "hidden_act": "quick_gelu",
}
OPEN_CLIP = {"hidden_act": "gelu"}
XL_UNET = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (1, 1),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A family: how its networks differ from Stable Diffusion 1's, and its text towers' names in both layouts.

    `towers`: by the name of the folder, the prefix in a single file.
    """

    unet: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    towers: dict[str, str]
    pipeline: str = "StableDiffusionPipeline"
    scaling_factor: float = 0.18215
    scheduler: dict[str, Any] = field(default_factory=dict)


SD1 = Kind(towers={"text_encoder": "cond_stage_model.transformer."})
INPAINTING = Kind(towers=SD1.towers, unet={"in_channels": 9}, pipeline="StableDiffusionInpaintPipeline")
DISTILLED = Kind(towers=SD1.towers, unet={"time_cond_proj_dim": 16})
SD2 = Kind(
    towers={"text_encoder": "cond_stage_model.model."},
    unet={"attention_head_dim": (1, 1), "use_linear_projection": True},
    text=OPEN_CLIP,
    scheduler={"prediction_type": "v_prediction"},
)
SDXL = Kind(
    towers={"text_encoder": "conditioner.embedders.0.transformer.", "text_encoder_2": "conditioner.embedders.1.model."},
    unet=XL_UNET | {"cross_attention_dim": 2 * WIDTH, "projection_class_embeddings_input_dim": SUMMARY + 6 * 8},
    pipeline="StableDiffusionXLPipeline",
    scaling_factor=0.13025,
)
REFINER = Kind(
    towers={"text_encoder_2": "conditioner.embedders.0.model."},
    unet=XL_UNET
    | {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 2),
        "attention_head_dim": (1, 1, 1),
        "projection_class_embeddings_input_dim": SUMMARY + 5 * 8,
    },
    pipeline="StableDiffusionXLImg2ImgPipeline",
    scaling_factor=0.13025,
)


def networks() -> tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]:
    """Return the three networks of Stable Diffusion 1's shape, the same on every call."""
    unet, vae, texts = networks_of(SD1)
    return unet, vae, texts["text_encoder"]


def networks_of(kind: Kind) -> tuple[UNet2DConditionModel, AutoencoderKL, dict[str, Any]]:
    """Return a family's denoiser, autoencoder and text encoders, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        unet = UNet2DConditionModel(**UNET | kind.unet)
        vae = AutoencoderKL(**VAE, scaling_factor=kind.scaling_factor)
        texts: dict[str, Any] = {}
        for part in kind.towers:
            if part == "text_encoder_2":
                config = CLIPTextConfig(**TEXT | OPEN_CLIP, projection_dim=SUMMARY)
                texts[part] = CLIPTextModelWithProjection(config)
            else:
                texts[part] = CLIPTextModel(CLIPTextConfig(**TEXT | kind.text))
    for network in (unet, vae, *texts.values()):
        network.eval().requires_grad_(False)
    return unet, vae, texts


def write_folder(folder: Path, kind: Kind = SD1) -> Path:
    """Write the model in diffusers layout and return the folder."""
    unet, vae, texts = networks_of(kind)
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    (folder / "scheduler").mkdir()
    scheduler = {"beta_schedule": "scaled_linear"} | kind.scheduler
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    index: dict[str, Any] = {
        "_class_name": kind.pipeline,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    for part, text in texts.items():
        text.save_pretrained(folder / part)
        tokenizer = folder / part.replace("text_encoder", "tokenizer")
        tokenizer.mkdir()
        shipped_clip_tokenizer().save(str(tokenizer / "tokenizer.json"))
        index[part] = ["transformers", type(text).__name__]
        index[tokenizer.name] = ["transformers", "CLIPTokenizer"]
    if "text_encoder" not in texts:
        index |= {"text_encoder": [None, None], "tokenizer": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_single_file(path: Path, kind: Kind = SD1, metadata: dict[str, str] | None = None) -> Path:
    """Write the model as one file under the original repository's tensor names and return its path."""
    unet, vae, texts = networks_of(kind)
    tensors = {"model.diffusion_model." + name: tensor for name, tensor in ldm_unet(unet).items()}
    tensors |= {"first_stage_model." + name: tensor for name, tensor in ldm_vae(vae).items()}
    for part, stem in kind.towers.items():
        text = texts[part]
        named = {name.removeprefix("text_model."): tensor for name, tensor in text.state_dict().items()}
        if stem.endswith(".transformer."):
            tensors |= {f"{stem}text_model.{name}": tensor for name, tensor in named.items()}
        else:
            tensors |= {stem + name: tensor for name, tensor in open_clip(named, extra_layer=kind is SD2).items()}
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def open_clip(named: dict[str, Tensor], *, extra_layer: bool) -> dict[str, Tensor]:
    """Rename a text transformer's tensors to OpenCLIP's, whose queries, keys and values are one matrix.

    `extra_layer` adds a last layer that nobody should use, as Stable Diffusion 2 has one.
    """
    names = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm": "ln_final",
        "encoder.layers": "transformer.resblocks",
        "layer_norm": "ln_",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    renamed = {}
    for name, tensor in named.items():
        if "_proj." in name and "self_attn" in name and "out_proj" not in name:
            continue
        new = name
        for old, replacement in names.items():
            new = new.replace(old, replacement)
        renamed[new] = tensor
    layers = TEXT["num_hidden_layers"]
    for i in range(layers):
        for leaf in ("weight", "bias"):
            shares = [named[f"encoder.layers.{i}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            renamed[f"transformer.resblocks.{i}.attn.in_proj_{leaf}"] = torch.cat(shares)
    if extra_layer:
        stem = f"transformer.resblocks.{layers - 1}."
        copies = {n.replace(stem, f"transformer.resblocks.{layers}."): t + 1 for n, t in renamed.items() if stem in n}
        renamed |= copies
    if "text_projection.weight" in renamed:
        renamed["text_projection"] = renamed.pop("text_projection.weight").t()
    return renamed | {"logit_scale": torch.tensor(4.6)}


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def ldm_unet(unet: nn.Module) -> dict[str, Tensor]:
    """Rename a denoiser's tensors from diffusers' to the original repository's."""
    config = unet.config
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    prefixes = {
        "conv_in.": "input_blocks.0.0.",
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "add_embedding.linear_1.": "label_emb.0.0.",
        "add_embedding.linear_2.": "label_emb.0.2.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
    }
    for i in range(levels):
        for j in range(layers):
            prefixes[f"down_blocks.{i}.resnets.{j}."] = f"input_blocks.{1 + i * (layers + 1) + j}.0."
            prefixes[f"down_blocks.{i}.attentions.{j}."] = f"input_blocks.{1 + i * (layers + 1) + j}.1."
        prefixes[f"down_blocks.{i}.downsamplers.0.conv."] = f"input_blocks.{(i + 1) * (layers + 1)}.0.op."
        for j in range(layers + 1):
            prefixes[f"up_blocks.{i}.resnets.{j}."] = f"output_blocks.{i * (layers + 1) + j}.0."
            prefixes[f"up_blocks.{i}.attentions.{j}."] = f"output_blocks.{i * (layers + 1) + j}.1."
        place = 2 if config["up_block_types"][i].startswith("Cross") else 1
        prefixes[f"up_blocks.{i}.upsamplers.0.conv."] = f"output_blocks.{i * (layers + 1) + layers}.{place}.conv."
    renamed = {}
    for name, tensor in unet.state_dict().items():
        prefix = next(p for p in prefixes if name.startswith(p))
        rest = name.removeprefix(prefix)
        head, _, leaf = rest.partition(".")
        if ".resnets." in prefix:
            rest = f"{_RESNET[head]}.{leaf}"
        renamed[prefixes[prefix] + rest] = tensor
    return renamed


def ldm_vae(vae: nn.Module) -> dict[str, Tensor]:
    """Rename an autoencoder's tensors likewise; its attention's matrices become 1x1 convolutions."""
    last = len(VAE["block_out_channels"]) - 1
    renamed = {}
    for name, tensor in vae.state_dict().items():
        for old, new in (("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out")):
            name = name.replace(old, new)
        for i in range(last + 1):
            name = name.replace(f"down_blocks.{i}.resnets", f"down.{i}.block")
            name = name.replace(f"down_blocks.{i}.downsamplers.0", f"down.{i}.downsample")
            name = name.replace(f"up_blocks.{i}.resnets", f"up.{last - i}.block")
            name = name.replace(f"up_blocks.{i}.upsamplers.0", f"up.{last - i}.upsample")
        name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        if "mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1")
            for old, new in (
                ("group_norm", "norm"),
                ("to_q", "q"),
                ("to_k", "k"),
                ("to_v", "v"),
                ("to_out.0", "proj_out"),
            ):
                name = name.replace(f".{old}.", f".{new}.")
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        renamed[name] = tensor
    return renamed
