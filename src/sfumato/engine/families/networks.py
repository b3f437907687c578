"""Building the networks from configurations and tensors, on the device and in its number format."""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from sfumato.core.errors import ModelLoadFailed
from sfumato.engine.attention import CpuAttention
from sfumato.engine.device import Device
from sfumato.engine.families.weights import filled

AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "AutoencoderDC": AutoencoderDC}

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_NOTES = ("architectures", "_name_or_path", "torch_dtype", "dtype", "transformers_version", "model_type")
"""What whoever saved a transformers configuration wrote about it."""


def unet(config: dict[str, Any], tensors: dict[str, Tensor], device: Device) -> Any:
    """Build a denoiser; raises `ModelLoadFailed`."""
    network = filled(_built(UNet2DConditionModel, config, "denoiser"), tensors, device, "denoiser")
    if device.is_cpu and device.dtype == torch.bfloat16:
        network.set_attn_processor(CpuAttention())
    return network


def vae(class_name: str, config: dict[str, Any], tensors: dict[str, Tensor], device: Device) -> Any:
    """Build an autoencoder of a diffusers class; raises `ModelLoadFailed`."""
    cls = AUTOENCODERS.get(class_name)
    if cls is None:
        raise ModelLoadFailed(f"Autoencoders of class {class_name!r} are not known.")
    network = filled(_built(cls, config, "autoencoder"), _modern_names(tensors), device, "autoencoder")
    if device.is_cpu and device.dtype == torch.bfloat16 and cls is AutoencoderKL:
        network.set_attn_processor(CpuAttention())
    return network


def clip(
    config: dict[str, Any], tensors: dict[str, Tensor], device: Device, *, projection: Tensor | None = None
) -> Any:
    """Build a CLIP text transformer, with its projection where one is given; raises `ModelLoadFailed`."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    named = {key.removeprefix("text_model."): tensor for key, tensor in tensors.items() if "position_ids" not in key}
    settings = _settings(config)
    if projection is None:
        with torch.device("meta"):
            network = CLIPTextModel(CLIPTextConfig(**settings))
        return filled(network, named, device, "text encoder")
    with torch.device("meta"):
        network = CLIPTextModelWithProjection(CLIPTextConfig(**settings | {"projection_dim": projection.shape[0]}))
    named = {f"text_model.{key}": tensor for key, tensor in named.items()}
    return filled(network, named | {"text_projection.weight": projection}, device, "text encoder")


def bert(config: dict[str, Any], tensors: dict[str, Tensor], device: Device) -> Any:
    """Build the built-in model's text encoder; raises `ModelLoadFailed`."""
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        network = BertModel(BertConfig(**_settings(config)), add_pooling_layer=False)
    named = {key: t for key, t in tensors.items() if "position_ids" not in key and not key.startswith("pooler.")}
    return filled(network, named, device, "text encoder")


def _built(cls: Any, config: dict[str, Any], what: str) -> Any:
    try:
        with torch.device("meta"):
            return cls.from_config(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelLoadFailed(f"The {what}'s configuration does not work: {error}") from error


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _NOTES}


def _modern_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the mid-block attention of autoencoders saved before diffusers 0.15."""
    renamed = {}
    for name, tensor in tensors.items():
        head, dot, leaf = name.rpartition(".")
        stem, sep, layer = head.rpartition(".")
        if ".attentions." in name and layer in _OLD_ATTENTION:
            name = f"{stem}{sep}{_OLD_ATTENTION[layer]}{dot}{leaf}"
        renamed[name] = tensor
    return renamed
