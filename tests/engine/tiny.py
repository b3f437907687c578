"""Small networks of Stable Diffusion's shape with random weights, in both layouts it comes in."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from sfumato.engine.families.text import shipped_clip_tokenizer

WIDTH = 32
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


def networks() -> tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]:
    """Return the three networks, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
        text = CLIPTextModel(CLIPTextConfig(**TEXT))
    for network in (unet, vae, text):
        network.eval().requires_grad_(False)
    return unet, vae, text


def write_folder(folder: Path) -> Path:
    """Write the model in diffusers layout and return the folder."""
    unet, vae, text = networks()
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    text.save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir(parents=True)
    shipped_clip_tokenizer().save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"beta_schedule": "scaled_linear"}))
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_single_file(path: Path) -> Path:
    """Write the model as one file under the original repository's tensor names and return its path."""
    unet, vae, text = networks()
    tensors = {"model.diffusion_model." + name: tensor for name, tensor in ldm_unet(unet).items()}
    tensors |= {"first_stage_model." + name: tensor for name, tensor in ldm_vae(vae).items()}
    stem = "cond_stage_model.transformer.text_model."
    tensors |= {stem + name.removeprefix("text_model."): tensor for name, tensor in text.state_dict().items()}
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    return path


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
    levels, layers = len(UNET["block_out_channels"]), UNET["layers_per_block"]
    prefixes = {
        "conv_in.": "input_blocks.0.0.",
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
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
        place = 2 if UNET["up_block_types"][i].startswith("Cross") else 1
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
