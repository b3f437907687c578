"""Which layer a tensor of a LoRA file belongs to, in the naming schemes of kohya's trainers, diffusers and peft.

kohya writes a layer's path with `_` for `.`, for Stable Diffusion XL in the original repository's names; which `_` was
a `.` is only known by the network's own layers, so names are looked up in a table made of those.
"""

import re
from dataclasses import dataclass

from torch import nn

UNET = "unet"
TEXT_ENCODER = "text_encoder"
TEXT_ENCODER_2 = "text_encoder_2"

_KOHYA = {
    "lora_unet_": UNET,
    "lora_te_": TEXT_ENCODER,
    "lora_te1_": TEXT_ENCODER,
    "lora_te2_": TEXT_ENCODER_2,
}
_COMPONENTS = (UNET, TEXT_ENCODER, TEXT_ENCODER_2)
_BLOCKS = ("down_blocks.", "up_blocks.", "mid_block.")

_LEAF = re.compile(
    r"(?P<stem>.+?)\.(?:"
    r"(?P<down>lora_down|lora_A(?:\.\w+)?|lora\.down|lora_linear_layer\.down)\.weight"
    r"|(?P<up>lora_up|lora_B(?:\.\w+)?|lora\.up|lora_linear_layer\.up)\.weight"
    r"|(?P<mid>lora_mid)\.weight"
    r"|(?P<magnitude>dora_scale|lora_magnitude_vector(?:\.\w+)*)"
    r"|(?P<other>alpha|diff|diff_b|hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t[12]))"
)
_ATTENTION_PROCESSOR = re.compile(
    r"(?P<layer>.+)\.processor\.(?P<part>to_q|to_k|to_v|to_out)_lora\.(?P<leaf>down|up)\.weight"
)


@dataclass(frozen=True)
class Place:
    """A layer of a component, as the file spells it: `is_flat` when its dots were turned into underscores."""

    component: str
    layer: str
    is_flat: bool


def parse_name(name: str) -> tuple[Place, str] | None:
    """Split a tensor's name into its layer and which factor it is; None when it follows no scheme."""
    if match := _ATTENTION_PROCESSOR.fullmatch(name):
        part = "to_out.0" if match["part"] == "to_out" else match["part"]
        place = _place(f"{match['layer']}.{part}")
        return (place, match["leaf"]) if place else None
    match = _LEAF.fullmatch(name)
    place = _place(match["stem"]) if match else None
    if match is None or place is None:
        return None
    leaf = match["other"] or next(kind for kind in ("down", "up", "mid", "magnitude") if match[kind])
    return place, leaf


def _place(stem: str) -> Place | None:
    stem = stem.removeprefix("base_model.model.")
    for prefix, component in _KOHYA.items():
        if stem.startswith(prefix):
            return Place(component, stem.removeprefix(prefix).removeprefix("text_model_"), is_flat=True)
    component, _, layer = stem.partition(".")
    if component in _COMPONENTS and layer:
        return Place(component, layer.removeprefix("text_model."), is_flat=False)
    if stem.startswith(_BLOCKS):
        return Place(UNET, stem, is_flat=False)
    return None


class LayerTable:
    """The linear and convolution layers of a network by every name a file may call them."""

    def __init__(self, network: nn.Module) -> None:
        self._paths: dict[tuple[str, bool], str] = {}
        layers = [name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
        originals = original_names(layers)
        for path in layers:
            plain = path.removeprefix("text_model.")
            self._paths[plain, False] = path
            for spelled in (plain, originals[path]):
                self._paths.setdefault((spelled.replace(".", "_"), True), path)

    def find(self, place: Place) -> str | None:
        """Return the path of a layer in the network; None when it has no such layer."""
        return self._paths.get((place.layer, place.is_flat))


_OUTER = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_MIDDLE = {"resnets.0": "middle_block.0", "attentions.0": "middle_block.1", "resnets.1": "middle_block.2"}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE_BLOCK = re.compile(r"mid_block\.((?:resnets|attentions)\.\d)\.(.+)")


def original_names(paths: list[str]) -> dict[str, str]:
    """Map a denoiser's layers from diffusers' names to those of the original repository (Rombach et al. 2022).

    What is of no such denoiser keeps its name.
    """
    blocks = {path: match for path in paths if (match := _BLOCK.fullmatch(path))}
    first_level = [int(m[4]) for m in blocks.values() if (m[1], m[2], m[3]) == ("down", "0", "resnets")]
    layers_per_level = max(first_level, default=0) + 1
    attending = {int(m[2]) for m in blocks.values() if (m[1], m[3]) == ("up", "attentions")}
    return {
        path: _block_name(blocks[path], layers_per_level, attending) if path in blocks else _outer_name(path)
        for path in paths
    }


def _outer_name(path: str) -> str:
    match = _MIDDLE_BLOCK.fullmatch(path)
    if match and match[1] in _MIDDLE:
        return f"{_MIDDLE[match[1]]}.{_RESNET.get(match[2], match[2])}"
    return _OUTER.get(path, path)


def _block_name(match: re.Match[str], layers_per_level: int, attending: set[int]) -> str:
    """Number a block as the original does: on the way down each level's layers are followed by its downsampler."""
    way, level, kind, number, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    first = level * (layers_per_level + 1)
    match way, kind:
        case _, "downsamplers":
            return f"input_blocks.{first + layers_per_level + 1}.0.op"
        case _, "upsamplers":
            return f"output_blocks.{first + layers_per_level}.{2 if level in attending else 1}.{rest}"
        case "down", _:
            block = f"input_blocks.{1 + first + number}"
        case _:
            block = f"output_blocks.{first + number}"
    return f"{block}.0.{_RESNET.get(rest, rest)}" if kind == "resnets" else f"{block}.1.{rest}"
