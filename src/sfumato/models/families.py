"""Which family a model's files belong to, told by tensor names and shapes or by a diffusers folder's JSON."""

import re
from pathlib import Path
from typing import Any

import msgspec

from sfumato.core.errors import ModelLoadFailed
from sfumato.core.models import Family
from sfumato.models.safetensors_header import Header, read_header

SAFETENSORS = ".safetensors"
PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
MODEL_INDEX = "model_index.json"

DEFAULT_SIDES = {
    Family.BUILTIN: 256,
    Family.SD1: 512,
    Family.SD2: 768,
    Family.SDXL: 1024,
    Family.SDXL_REFINER: 1024,
}
"""Pixels along each side when neither a request nor the model's configuration says."""

_UNET = "model.diffusion_model."
_FIRST_CONVOLUTION = f"{_UNET}input_blocks.0.0.weight"
_VAE = "first_stage_model."
_TOWERS = {
    Family.SDXL: ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
    Family.SDXL_REFINER: ("conditioner.embedders.0.model.",),
    Family.SD2: ("cond_stage_model.model.",),
    Family.SD1: ("cond_stage_model.transformer.",),
}
"""The text encoders of each family's single files, by which a family is told."""

_VAE_PARTS = ("decoder.", f"{_VAE}decoder.")
_LORA_PREFIXES = ("lora_unet_", "lora_te", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora")
_LATENT_CHANNELS = 4
_INPAINTING_CHANNELS = 9
_SD2_CONTEXT_WIDTH = 1024
_PIXELS_PER_CELL = 8
_SIDES = range(64, 2049)

_RECOMMENDED = {"turbo": (4, 1.0), "lightning": (4, 1.0), "lcm": (6, 1.5)}
_DISTILLED = re.compile(r"turbo|lightning|(?<![a-z])lcm(?![a-z])")
_STEPS = re.compile(r"(?<!\d)(\d)[ _-]?steps?(?![a-z])")
_KNOWN = "This version loads Stable Diffusion 1.x, 2.x and XL, its refiner, and their inpainting variants."
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
    encoders = [part for part in ("text_encoder", "text_encoder_2") if _class_name(index, part)]
    for part in (*(encoders or ("text_encoder",)), "unet", "vae"):
        _require_weights(folder, part, index)
    if _class_name(index, "text_encoder") == "BertModel":
        return Family.BUILTIN
    unet = _read_json(folder, "unet/config.json")
    _require_channels(folder.name, unet.get("in_channels", _LATENT_CHANNELS))
    if "text_encoder_2" in encoders:
        return Family.SDXL if "text_encoder" in encoders else Family.SDXL_REFINER
    width = unet.get("cross_attention_dim")
    if not isinstance(width, int) or _class_name(index, "text_encoder") != "CLIPTextModel":
        raise _unknown(folder.name)
    return Family.SD2 if width == _SD2_CONTEXT_WIDTH else Family.SD1


def side_of_folder(folder: Path, family: Family) -> int:
    """Return the pixels along each side that a diffusers folder's denoiser was trained at."""
    cells = _read_json(folder, "unet/config.json").get("sample_size")
    if isinstance(cells, int) and family is not Family.BUILTIN and cells * _PIXELS_PER_CELL in _SIDES:
        return cells * _PIXELS_PER_CELL
    return DEFAULT_SIDES[family]


def require_vae_file(path: Path) -> None:
    """Raise `ModelLoadFailed` unless a file can be read safely and holds an autoencoder."""
    refuse_pickle(path)
    header = read_header(path)
    if not any(header.has_prefix(prefix) for prefix in _VAE_PARTS):
        raise ModelLoadFailed(f"{path.name} holds no VAE.")


def recommended_by_name(name: str) -> tuple[int, float]:
    """Return the steps and guidance scale to use when a request does not say.

    Networks distilled to few steps (Luo et al. 2023, Sauer et al. 2023, Lin et al. 2024) look like others, but are
    named for it.
    """
    found = _DISTILLED.search(name.casefold())
    if found is None:
        return 20, 7.0
    steps = _STEPS.search(name.casefold())
    count, guidance_scale = _RECOMMENDED[found[0]]
    return (int(steps[1]) if steps else count), guidance_scale


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
    if first is None or len(first) != 4:
        if any(header.has_prefix(prefix) for prefix in _LORA_PREFIXES):
            raise ModelLoadFailed(f"{name} is a LoRA, not a whole model.")
        if any(header.has_prefix(prefix) for prefix in _VAE_PARTS) and not header.has_prefix(_UNET):
            raise ModelLoadFailed(f"{name} is a VAE, not a whole model.", hint="Put it into a folder named VAE.")
        raise _unknown(name)
    _require_channels(name, first[1])
    if not header.has_prefix(_VAE):
        raise ModelLoadFailed(f"{name} holds no VAE.", hint="Use a file that holds the whole model.")
    for family, towers in _TOWERS.items():
        if all(header.has_prefix(tower) for tower in towers):
            return family
    raise ModelLoadFailed(
        f"{name} holds no text encoder of a known family.", hint="Use a file that holds the whole model."
    )


def _require_channels(name: str, channels: object) -> None:
    if channels not in (_LATENT_CHANNELS, _INPAINTING_CHANNELS):
        raise ModelLoadFailed(f"{name} is made for editing or upscaling ({channels} input channels).", hint=_KNOWN)


def _unknown(name: str) -> ModelLoadFailed:
    return ModelLoadFailed(f"{name} is of a family this version does not know.", hint=_KNOWN)


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
