"""Reading weights: safetensors only, straight into networks built without weights of their own."""

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sfumato.core.errors import ModelLoadFailed
from sfumato.engine.device import Device

Module = TypeVar("Module", bound=nn.Module)


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON configuration file; raises `ModelLoadFailed`."""
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelLoadFailed(f"Cannot read {path}: {error}.") from error
    if not isinstance(config, dict):
        raise ModelLoadFailed(f"{path} does not hold a JSON object.")
    return config


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read the tensors of a safetensors file whose names start with `prefix`, which is cut off."""
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise ModelLoadFailed(f"Cannot read {path}: {error}.") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Read the notes in a safetensors file's header; raises `ModelLoadFailed`."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ModelLoadFailed(f"Cannot read {path}: {error}.") from error


def read_component(folder: Path, name: str) -> dict[str, Tensor]:
    """Read a component's tensors: one file or several with an index, of full or half precision, never pickles.

    Raises `ModelLoadFailed` when there are none or they are damaged.
    """
    for stem in (name, f"{name}.fp16"):
        if (folder / f"{stem}.safetensors").exists():
            return read_tensors(folder / f"{stem}.safetensors")
    for index in (f"{name}.safetensors.index.json", f"{name}.safetensors.index.fp16.json"):
        if (folder / index).exists():
            return _read_shards(folder, read_config(folder / index).get("weight_map"))
    raise ModelLoadFailed(
        f"No safetensors weights in {folder}.", hint="Pickled weights (.bin, .ckpt) are not read: convert them."
    )


def _read_shards(folder: Path, weight_map: Any) -> dict[str, Tensor]:
    names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise ModelLoadFailed(f"The index of the weights in {folder} names no files beside it.")
    tensors: dict[str, Tensor] = {}
    for name in sorted(names):
        tensors |= read_tensors(folder / name)
    return tensors


def filled(network: Module, tensors: dict[str, Tensor], device: Device, what: str) -> Module:
    """Give a network built on the meta device its weights, in the device's number format, ready for inference.

    Raises `ModelLoadFailed` when tensors are missing, left over or of another shape.
    """
    cast = {
        k: t.to(device.torch_device, device.dtype if t.is_floating_point() else t.dtype) for k, t in tensors.items()
    }
    try:
        result = network.load_state_dict(cast, strict=False, assign=True)
    except RuntimeError as error:
        raise ModelLoadFailed(f"The {what}'s weights do not fit its configuration: {error}") from error
    if result.missing_keys:
        raise ModelLoadFailed(
            f"The {what}'s weights lack {len(result.missing_keys)}, such as {result.missing_keys[0]}."
        )
    if result.unexpected_keys:
        raise ModelLoadFailed(f"The {what}'s weights have extra tensors, such as {result.unexpected_keys[0]}.")
    _fill_buffers(network, device)
    network.eval().requires_grad_(False)
    if device.is_cpu:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _fill_buffers(network: nn.Module, device: Device) -> None:
    """Fill the constant tables that checkpoints do not carry: positions count up, token types are zero."""
    for name, buffer in list(network.named_buffers()):
        if not buffer.is_meta:
            continue
        owner = network.get_submodule(name.rpartition(".")[0])
        if name.endswith("position_ids"):
            table = torch.arange(buffer.numel(), device=device.torch_device).expand(buffer.shape)
        elif name.endswith("token_type_ids"):
            table = torch.zeros(buffer.shape, dtype=buffer.dtype, device=device.torch_device)
        else:
            raise ModelLoadFailed(f"The weights lack the table {name}.")
        owner.register_buffer(name.rpartition(".")[2], table, persistent=False)
