"""Small stand-ins for model files: headers and JSON like the real ones, next to no weights."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

UNET = "model.diffusion_model."


def sd1_shapes(*, width: int = 768, channels: int = 4) -> dict[str, list[int]]:
    return shapes("cond_stage_model.transformer.text_model.final_layer_norm.weight", width=width, channels=channels)


def shapes(*towers: str, width: int = 768, channels: int = 4) -> dict[str, list[int]]:
    """Shapes of a whole checkpoint with text encoders under these names."""
    return {
        f"{UNET}input_blocks.0.0.weight": [320, channels, 3, 3],
        f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [320, width],
        **{tower: [768] for tower in towers},
        "first_stage_model.decoder.conv_in.weight": [512, 4, 3, 3],
    }


def write_safetensors(
    path: Path,
    shapes: Mapping[str, Sequence[int]],
    *,
    payload: bytes = b"",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    header: dict[str, object] = {
        name: {"dtype": "F16", "shape": shape, "data_offsets": [0, len(payload)]} for name, shape in shapes.items()
    }
    raw = json.dumps({"__metadata__": {"format": "pt", **(metadata or {})}, **header}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + payload)
    return path


def write_sd1_file(path: Path, *, payload: bytes = b"") -> Path:
    return write_safetensors(path, sd1_shapes(), payload=payload)


def write_vae(path: Path, *, payload: bytes = b"") -> Path:
    return write_safetensors(path, {"decoder.conv_in.weight": [512, 4, 3, 3]}, payload=payload)


def write_sd1_folder(
    folder: Path,
    *,
    weights: str = "model.safetensors",
    encoders: tuple[str, ...] = ("text_encoder",),
    **unet: object,
) -> Path:
    index = {
        "_class_name": "StableDiffusionPipeline",
        **{encoder: ["transformers", "CLIPTextModel"] for encoder in encoders},
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    for part in (*encoders, "unet", "vae"):
        write_safetensors(folder / part / weights, {"weight": [1]})
    config = {"cross_attention_dim": 768, "in_channels": 4} | unet
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    return folder
