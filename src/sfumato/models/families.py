"""Which family a model's files belong to, told by tensor names and shapes or by a diffusers folder's JSON."""

from pathlib import Path
from typing import Any

import msgspec

from sfumato.core.errors import ModelLoadFailed
from sfumato.core.models import Family
from sfumato.models.safetensors_header import Header, read_header

SAFETENSORS = ".safetensors"
PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
MODEL_INDEX = "model_index.json"

DEFAULT_SIDES = {Family.BUILTIN: 256, Family.SD1: 512}
"""Pixels along each side when a request does not say."""

_UNET = "model.diffusion_model."
_FIRST_CONVOLUTION = f"{_UNET}input_blocks.0.0.weight"
_CONTEXT = f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_CONTEXT_SDXL = f"{_UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
_PARTS = {"cond_stage_model.": "text encoder", "first_stage_model.": "VAE"}
_LORA_PREFIXES = ("lora_unet_", "lora_te", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora")
_LATENT_CHANNELS = 4
_OTHER_FAMILIES = {1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
"""Conditioning widths that tell another family; others are Stable Diffusion 1 (768) or small networks of its shape."""

_WEIGHT_FOLDERS = ("text_encoder", "unet", "vae")
_MAX_JSON_BYTES = 1_000_000


def family_of_file(path: Path) -> Family:
    """Tell a single file's family by its header.

    Raises `ModelLoadFailed` for a pickle, a damaged file, a file that is no whole model, or an unknown family.
    """
    refuse_pickle(path)
    if path.suffix != SAFETENSORS:
        raise ModelLoadFailed(f"{path.name} is no .safetensors file.", hint="Give a .safetensors file or a folder.")
    return _family_of_header(path.name, read_header(path))


def family_of_folder(folder: Path) -> Family:
    """Tell a diffusers folder's family by `model_index.json` and the denoiser's `config.json`.

    A small BERT as text encoder is what marks the built-in model's family.

    Raises `ModelLoadFailed` when a part is missing, has only pickled weights, or the family is unknown.
    """
    index = _read_json(folder, MODEL_INDEX)
    for part in _WEIGHT_FOLDERS:
        _require_weights(folder, part, index)
    encoder = _class_name(index, "text_encoder")
    if encoder == "BertModel":
        return Family.BUILTIN
    unet = _read_json(folder, "unet/config.json")
    _refuse_other_widths(folder.name, unet.get("cross_attention_dim") if encoder == "CLIPTextModel" else None)
    _require_latent_channels(folder.name, unet.get("in_channels", _LATENT_CHANNELS))
    return Family.SD1


def is_model_folder(path: Path) -> bool:
    """Say whether a folder claims to hold a model in diffusers layout."""
    return (path / MODEL_INDEX).is_file()


def refuse_pickle(path: Path) -> None:
    """Raise `ModelLoadFailed` when the name says the file is a pickle: reading one can run any code."""
    if path.suffix.lower() in PICKLES:
        raise ModelLoadFailed(
            f"{path.name} is a pickle, which can run any code when it is read.",
            hint="Use the .safetensors file of the same model.",
        )


def _family_of_header(name: str, header: Header) -> Family:
    first = header.shapes.get(_FIRST_CONVOLUTION)
    context = header.shapes.get(_CONTEXT) or header.shapes.get(_CONTEXT_SDXL)
    if first is None or context is None or len(first) != 4:
        if any(header.has_prefix(prefix) for prefix in _LORA_PREFIXES):
            raise ModelLoadFailed(f"{name} is a LoRA, not a whole model.")
        raise _unknown(name, "of a family this version does not know")
    _refuse_other_widths(name, context[-1])
    _require_latent_channels(name, first[1])
    for prefix, part in _PARTS.items():
        if not header.has_prefix(prefix):
            raise ModelLoadFailed(f"{name} holds no {part}.", hint="Use a file that holds the whole model.")
    return Family.SD1


def _refuse_other_widths(name: str, width: object) -> None:
    if not isinstance(width, int):
        raise _unknown(name, "of a family this version does not know")
    if width in _OTHER_FAMILIES:
        raise _unknown(name, f"a {_OTHER_FAMILIES[width]} model")


def _require_latent_channels(name: str, channels: object) -> None:
    if channels != _LATENT_CHANNELS:
        raise _unknown(name, f"made for inpainting or editing ({channels} input channels)")


def _unknown(name: str, what: str) -> ModelLoadFailed:
    return ModelLoadFailed(f"{name} is {what}.", hint="This version loads Stable Diffusion 1.x models.")


def _require_weights(folder: Path, part: str, index: dict[str, Any]) -> None:
    place = folder / part
    if part not in index or not place.is_dir():
        raise ModelLoadFailed(f"{folder.name} has no {part} folder.", hint="Copy or download the whole model.")
    files = [entry for entry in place.iterdir() if entry.is_file()]
    weights = [entry for entry in files if entry.suffix == SAFETENSORS]
    for entry in weights:
        read_header(entry)
    if not weights:
        pickles = [entry for entry in files if entry.suffix.lower() in PICKLES]
        kind = "only pickled weights, which can run any code" if pickles else "no weights"
        raise ModelLoadFailed(f"{folder.name}/{part} has {kind}.", hint="Use a copy with .safetensors files.")


def _class_name(index: dict[str, Any], part: str) -> str:
    entry = index.get(part)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 else ""


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelLoadFailed(f"{folder.name}/{name} is too large to be a configuration.")
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelLoadFailed(f"{folder.name}/{name} cannot be read: {reason}.") from None
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        raise ModelLoadFailed(f"{folder.name}/{name} is not valid JSON.") from None
