"""LoRA files, and the sets of them that a request asks for, ready to act on a model's networks."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sfumato.core.errors import UnusableAddOn
from sfumato.engine.adapters.deltas import Delta, Factors, Misfit, delta_of, stacked
from sfumato.engine.adapters.names import UNET, LayerTable, Place, parse_name


@dataclass(frozen=True)
class LoraFile:
    """A file's factors by the layer they change."""

    name: str
    layers: Mapping[Place, Factors]

    @property
    def size_bytes(self) -> int:
        """The memory that the factors take."""
        return sum(t.numel() * t.element_size() for factors in self.layers.values() for t in factors.values())


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA file and how strongly it acts; `rank`, if given, is the most of its ranks that are used."""

    name: str
    path: str
    text_weight: float
    denoiser_weight: float
    rank: int | None = None

    def weight_of(self, component: str) -> float:
        """Return how strongly it acts on a component of the model."""
        return self.denoiser_weight if component == UNET else self.text_weight


@dataclass(frozen=True, eq=False)
class AdapterSet:
    """What one or more LoRAs together change in each component of a model: deltas by the path of their layer."""

    deltas: Mapping[str, Mapping[str, list[Delta]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The memory that the deltas take."""
        tensors = (
            t for layers in self.deltas.values() for each in layers.values() for d in each for t in vars(d).values()
        )
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)

    @contextmanager
    def on(self, networks: Mapping[str, nn.Module]) -> Iterator[None]:
        """Let the LoRAs act on these networks, by component, for the length of a block."""
        handles = [
            network.get_submodule(path).register_forward_hook(_adding(deltas))
            for component, network in networks.items()
            for path, deltas in self.deltas.get(component, {}).items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _adding(deltas: list[Delta]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for delta in deltas:
            output = output + delta.of(layer, inputs[0])
        return output

    return add


def read_lora(name: str, path: Path) -> LoraFile:
    """Read a LoRA in the format of kohya's trainers, diffusers or peft. Raises `UnusableAddOn`."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UnusableAddOn(f"The LoRA {name} cannot be read: {error}.") from error
    layers: dict[Place, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if parsed := parse_name(key):
            place, leaf = parsed
            layers.setdefault(place, {})[leaf] = tensor
    if not layers:
        raise UnusableAddOn(f"The file {name} is no LoRA of a kind that is known.")
    _add_alphas(layers, metadata)
    return LoraFile(name, layers)


def _add_alphas(layers: Mapping[Place, dict[str, Tensor]], metadata: Mapping[str, str]) -> None:
    """Give layers the alpha that diffusers keeps in the header: `<component>.lora_alpha`, or one by layer."""
    try:
        noted = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return
    if not isinstance(noted, dict):
        return
    for place, factors in layers.items():
        patterns = noted.get(f"{place.component}.alpha_pattern")
        alpha = noted.get(f"{place.component}.lora_alpha")
        if isinstance(patterns, dict):
            alpha = patterns.get(place.layer, alpha)
        if "alpha" not in factors and isinstance(alpha, (int, float)):
            factors["alpha"] = torch.tensor(float(alpha))


def combine(
    adapters: Sequence[tuple[Adapter, LoraFile]],
    networks: Mapping[str, nn.Module],
    dtype: torch.dtype,
    device: torch.device,
) -> AdapterSet:
    """Fit LoRAs to a model's networks. Raises `UnusableAddOn` when one was made for another family of models.

    Layers that the model does not have are passed over, with a note, as long as the file has others that it has.
    """
    tables = {component: LayerTable(network) for component, network in networks.items()}
    found: dict[str, dict[str, list[Delta]]] = {component: {} for component in networks}
    notes = []
    for adapter, file in adapters:
        fitting = 0
        for place, factors in file.layers.items():
            table = tables.get(place.component)
            path = table.find(place) if table else None
            if path is None:
                continue
            fitting += 1
            if strength := adapter.weight_of(place.component):
                layer = networks[place.component].get_submodule(path)
                delta = _fitted(layer, file, place, factors, strength, adapter.rank)
                found[place.component].setdefault(path, []).append(delta)
        if not fitting:
            raise _other_family(file.name, "the model has none of the layers it changes")
        if fitting < len(file.layers):
            missing = len(file.layers) - fitting
            notes.append(f"{missing} of the {len(file.layers)} layers of the LoRA {file.name} are not in this model.")
    deltas = {
        component: {path: [_moved(delta, dtype, device) for delta in stacked(each)] for path, each in layers.items()}
        for component, layers in found.items()
    }
    return AdapterSet(deltas, tuple(notes))


def _fitted(
    layer: nn.Module, file: LoraFile, place: Place, factors: Factors, strength: float, rank: int | None
) -> Delta:
    try:
        return delta_of(layer, factors, strength, rank)
    except Misfit as error:
        raise _other_family(file.name, f"at {place.layer}, {error}") from error


def _other_family(name: str, reason: str) -> UnusableAddOn:
    return UnusableAddOn(
        f"The LoRA {name} does not fit this model: {reason}.", hint="Use a LoRA made for the model's family."
    )


def _moved(delta: Delta, dtype: torch.dtype, device: torch.device) -> Delta:
    moved: dict[str, Any] = {
        name: None if t is None else t.to(device, dtype).contiguous() for name, t in vars(delta).items()
    }
    return type(delta)(**moved)
