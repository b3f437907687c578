"""From a model's location on disk to a `LoadedModel`: diffusers folders and Stable Diffusion 1 single files."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from sfumato.core.errors import ModelLoadFailed
from sfumato.engine.attention import CpuAttention
from sfumato.engine.device import Device
from sfumato.engine.families import sd1_file
from sfumato.engine.families.autoencoder import Autoencoder
from sfumato.engine.families.base import Denoiser, LatentCodec, LoadedModel, Prediction, size_bytes
from sfumato.engine.families.text import BertText, ClipText, read_tokenizer, shipped_clip_tokenizer
from sfumato.engine.families.weights import filled, find_weights, read_config, read_tensors
from sfumato.engine.prompt.encode import PromptEncoder, TextEncoder
from sfumato.engine.sampling.schedules import NoiseLevels

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
_TEXT_WEIGHTS = ("model.safetensors", "model.fp16.safetensors")


def load_model(name: str, location: str, device: Device) -> LoadedModel:
    """Read a model's weights onto the device; raises `ModelLoadFailed` with what is wrong and where."""
    path = Path(location)
    if path.is_dir():
        return load_folder(name, path, device)
    if path.suffix == ".safetensors" and path.is_file():
        return load_sd1_file(name, path, device)
    raise ModelLoadFailed(f"{location} is neither a folder in diffusers layout nor a .safetensors file.")


def load_folder(name: str, folder: Path, device: Device) -> LoadedModel:
    """Load a folder in diffusers layout: the built-in model, or Stable Diffusion 1."""
    index = read_config(folder / "model_index.json")
    unet = _unet(
        read_config(folder / "unet" / "config.json"), read_tensors(find_weights(folder / "unet", *_WEIGHTS)), device
    )
    vae_class = {"AutoencoderKL": AutoencoderKL, "AutoencoderDC": AutoencoderDC}.get(_component(index, "vae"))
    if vae_class is None:
        raise ModelLoadFailed(f"{folder}: autoencoders of class {_component(index, 'vae')!r} are not known.")
    vae = _vae(
        vae_class,
        read_config(folder / "vae" / "config.json"),
        read_tensors(find_weights(folder / "vae", *_WEIGHTS)),
        device,
    )
    text = _folder_text(folder, _component(index, "text_encoder"), device)
    schedule = read_config(folder / "scheduler" / "scheduler_config.json")
    return _assembled(name, unet, vae, text, schedule, device)


def load_sd1_file(name: str, path: Path, device: Device) -> LoadedModel:
    """Load a Stable Diffusion 1 checkpoint from one file in the layout of the original repository."""
    parts = sd1_file.read_parts(path)
    unet = _unet(parts.unet_config, parts.unet, device)
    vae = _vae(AutoencoderKL, parts.vae_config, parts.vae, device)
    text = ClipText(_clip(parts.text_config, parts.text, device), shipped_clip_tokenizer())
    return _assembled(name, unet, vae, text, parts.scheduler_config, device)


def _component(index: dict[str, Any], part: str) -> str:
    entry = index.get(part)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 else "nothing"


def _built(cls: Any, config: dict[str, Any], what: str) -> Any:
    try:
        with torch.device("meta"):
            return cls.from_config(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelLoadFailed(f"The {what}'s configuration does not work: {error}") from error


def _unet(config: dict[str, Any], tensors: dict[str, Tensor], device: Device) -> Any:
    unet = filled(_built(UNet2DConditionModel, config, "denoiser"), tensors, device, "denoiser")
    if device.is_cpu and device.dtype == torch.bfloat16:
        unet.set_attn_processor(CpuAttention())
    return unet


def _vae(cls: Any, config: dict[str, Any], tensors: dict[str, Tensor], device: Device) -> Any:
    vae = filled(_built(cls, config, "autoencoder"), sd1_file.modern_vae_names(tensors), device, "autoencoder")
    if device.is_cpu and device.dtype == torch.bfloat16 and cls is AutoencoderKL:
        vae.set_attn_processor(CpuAttention())
    return vae


def _clip(config: dict[str, Any], tensors: dict[str, Tensor], device: Device) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        network = CLIPTextModel(CLIPTextConfig(**_settings(config)))
    named = {key.removeprefix("text_model."): tensor for key, tensor in tensors.items() if "position_ids" not in key}
    return filled(network, named, device, "text encoder")


def _bert(config: dict[str, Any], tensors: dict[str, Tensor], device: Device) -> Any:
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        network = BertModel(BertConfig(**_settings(config)), add_pooling_layer=False)
    named = {key: t for key, t in tensors.items() if "position_ids" not in key and not key.startswith("pooler.")}
    return filled(network, named, device, "text encoder")


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return a transformers configuration without the notes of whoever saved it."""
    notes = ("architectures", "_name_or_path", "torch_dtype", "dtype", "transformers_version", "model_type")
    return {key: value for key, value in config.items() if key not in notes}


def _folder_text(folder: Path, text_class: str, device: Device) -> TextEncoder:
    config = read_config(folder / "text_encoder" / "config.json")
    tensors = read_tensors(find_weights(folder / "text_encoder", *_TEXT_WEIGHTS))
    tokenizer = read_tokenizer(folder / "tokenizer")
    if text_class == "CLIPTextModel":
        return ClipText(_clip(config, tensors, device), tokenizer)
    if text_class == "BertModel":
        return BertText(_bert(config, tensors, device), tokenizer)
    raise ModelLoadFailed(f"{folder}: text encoders of class {text_class!r} are not known.")


def _assembled(name: str, unet: Any, vae: Any, text: Any, scheduler: dict[str, Any], device: Device) -> LoadedModel:
    try:
        prediction = Prediction(scheduler.get("prediction_type", "epsilon"))
    except ValueError as error:
        raise ModelLoadFailed(f"Models that predict {scheduler['prediction_type']!r} are not known.") from error
    channels = int(unet.config.in_channels)
    if channels != int(vae.config.latent_channels):
        raise ModelLoadFailed(
            f"The denoiser takes {channels} channels, the autoencoder makes {vae.config.latent_channels}: "
            "inpainting and other conditioned checkpoints are not served yet."
        )
    return LoadedModel(
        name=name,
        denoiser=Denoiser(
            lambda x, t, told: unet(x, t, encoder_hidden_states=told.states, return_dict=False)[0],
            levels=_levels(scheduler),
            prediction=prediction,
            dtype=device.dtype,
            device=device.torch_device,
        ),
        prompts=PromptEncoder(text),
        codec=LatentCodec(
            Autoencoder(vae, dtype=device.dtype, device=device.torch_device),
            scaling_factor=float(vae.config.scaling_factor),
            shift_factor=float(vae.config.get("shift_factor") or 0.0),
        ),
        latent_channels=channels,
        size_bytes=size_bytes(unet, vae, text.network),
    )


def _levels(scheduler: dict[str, Any]) -> NoiseLevels:
    if scheduler.get("rescale_betas_zero_snr"):
        raise ModelLoadFailed("Models trained to zero terminal signal are not served yet.")
    start, end = float(scheduler.get("beta_start", 0.00085)), float(scheduler.get("beta_end", 0.012))
    count = int(scheduler.get("num_train_timesteps", 1000))
    kind = scheduler.get("beta_schedule", "scaled_linear")
    if kind == "scaled_linear":
        return NoiseLevels.scaled_linear(start, end, count)
    if kind == "linear":
        return NoiseLevels.from_betas(torch.linspace(start, end, count, dtype=torch.float64))
    raise ModelLoadFailed(f"Noise schedules of kind {kind!r} are not known.")
