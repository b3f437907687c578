"""Where programs keep model files: AUTOMATIC1111's tree, ComfyUI's tree and `extra_model_paths.yaml`, a flat folder.

Knows folders by their names and opens no model.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from sfumato.core.errors import ModelLoadFailed


class Kind(StrEnum):
    """What the files of a folder are."""

    CHECKPOINT = "checkpoint"
    VAE = "vae"
    LORA = "lora"
    EMBEDDING = "embedding"
    UPSCALER = "upscaler"
    CONTROLNET = "controlnet"


Folders = dict[Kind, list[Path]]

_NAMES = {
    "stable-diffusion": Kind.CHECKPOINT,
    "checkpoints": Kind.CHECKPOINT,
    "diffusers": Kind.CHECKPOINT,
    "vae": Kind.VAE,
    "lora": Kind.LORA,
    "lycoris": Kind.LORA,
    "loras": Kind.LORA,
    "embeddings": Kind.EMBEDDING,
    "esrgan": Kind.UPSCALER,
    "realesrgan": Kind.UPSCALER,
    "upscale_models": Kind.UPSCALER,
    "controlnet": Kind.CONTROLNET,
}
"""Folder names of AUTOMATIC1111 and ComfyUI, in lower case; in `extra_model_paths.yaml` they are keys."""

_BASE_PATH = "base_path"
_MAX_YAML_BYTES = 1_000_000


def folders_in(root: Path) -> Folders:
    """Return the folders of each kind in a program's folder or its `models` folder.

    A folder in which no such names are found holds checkpoints, like `models/Stable-diffusion` itself.
    """
    found: Folders = {}
    for place in (root, root / "models"):
        for folder in sorted(place.iterdir()) if place.is_dir() else ():
            kind = _NAMES.get(folder.name.casefold())
            if kind is not None and folder.is_dir():
                found.setdefault(kind, []).append(folder)
    return found if Kind.CHECKPOINT in found else {Kind.CHECKPOINT: [root]}


def folders_of(kind: Kind, root: Path) -> list[Path]:
    """Return the folders of one kind in a program's folder or its `models` folder, whatever else is there."""
    folders = (folder for place in (root, root / "models") if place.is_dir() for folder in sorted(place.iterdir()))
    return [folder for folder in folders if _NAMES.get(folder.name.casefold()) is kind and folder.is_dir()]


def read_extra_paths(file: Path) -> Folders:
    """Read the folders that ComfyUI's `extra_model_paths.yaml` names; those that are not there are left out.

    Each section has a `base_path` and, by key, paths below it, one a line. Raises `ModelLoadFailed`.
    """
    found: Folders = {}
    for section in _sections(file):
        base = _expanded(str(section.get(_BASE_PATH) or ""), file.parent)
        for key, value in section.items():
            kind = _NAMES.get(str(key).casefold())
            if kind is None or not isinstance(value, str):
                continue
            folders = (_expanded(line.strip(), base) for line in value.splitlines() if line.strip())
            found.setdefault(kind, []).extend(folder for folder in folders if folder.is_dir())
    return found


def _sections(file: Path) -> list[dict[str, Any]]:
    try:
        if file.stat().st_size > _MAX_YAML_BYTES:
            raise ModelLoadFailed(f"{file} is too large to be a list of paths.")
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelLoadFailed(f"extra_model_paths {file} cannot be read: {reason}.") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ModelLoadFailed(f"extra_model_paths {file} is not valid YAML.") from None
    if content is None:
        return []
    if not isinstance(content, dict):
        raise ModelLoadFailed(f"extra_model_paths {file} has no sections.")
    return [section for section in content.values() if isinstance(section, dict)]


def _expanded(text: str, base: Path) -> Path:
    return base / Path(os.path.expandvars(text)).expanduser()
