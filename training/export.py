"""Write the trained model in diffusers layout, in half precision, file by file and each at once.

The autoencoder comes from `vae/` in the work folder, the denoiser's moving average from `denoiser.pt`. The latents'
scale is one: `scaling_factor` is 1 and no shift is needed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC, DDIMScheduler
from transformers import BertModel

from training.autoencoder import to_tensor
from training.common import DEFAULT_WORK
from training.denoiser import TIMESTEPS, build
from training.scenes import Composer
from training.sprites import SpriteStore
from training.text import CONTEXT, packaged_encoder

DEFAULT_TARGET = Path("src/sfumato/builtin")
TOKENIZER_FILES = ("vocab.txt", "special_tokens_map.json")


def write_models(work: Path, folder: Path) -> None:
    """Write unet, vae, text encoder, tokenizer and scheduler."""
    unet = build()
    unet.load_state_dict(torch.load(work / "denoiser.pt", map_location="cpu")["average"])
    unet.half().save_pretrained(folder / "unet")
    AutoencoderDC.from_pretrained(work / "vae").half().save_pretrained(folder / "vae")
    BertModel.from_pretrained(packaged_encoder(), add_pooling_layer=False).half().save_pretrained(
        folder / "text_encoder"
    )
    write_tokenizer(folder / "tokenizer")
    DDIMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")


def write_tokenizer(folder: Path) -> None:
    """Copy the tokenizer's files, with the context's length as its limit and no padding or cutting of its own."""
    folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copy(packaged_encoder() / name, folder / name)
    tokenizer = json.loads((packaged_encoder() / "tokenizer.json").read_text())
    tokenizer |= {"truncation": None, "padding": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    config = json.loads((packaged_encoder() / "tokenizer_config.json").read_text())
    del config["name_or_path"]
    config |= {"model_max_length": CONTEXT, "do_lower_case": True, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def model_index() -> dict[str, object]:
    """Say what each folder holds, as diffusers pipelines do."""
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "BertModel"],
        "tokenizer": ["transformers", "BertTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderDC"],
    }


@torch.no_grad()
def preview(work: Path, scenes: int = 64) -> dict[str, object]:
    """Fit RGB in 0..1 of each 8 x 8 patch as a linear map of its latent: `factors` (channels, 3), `bias` (3)."""
    encoder = AutoencoderDC.from_pretrained(work / "vae").encoder
    composer = Composer(SpriteStore(work / "sprites"), seed=55_555)
    pictures = torch.stack([to_tensor(composer.compose().picture) for _ in range(scenes)])
    latents = torch.cat([encoder(batch) for batch in torch.split(pictures, 8)]).permute(0, 2, 3, 1).flatten(0, 2)
    colours = torch.nn.functional.avg_pool2d((pictures + 1) / 2, 8).permute(0, 2, 3, 1).flatten(0, 2)
    inputs = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
    fitted = np.round(torch.linalg.lstsq(inputs, colours).solution.numpy().astype(float), 5).tolist()
    return {"factors": fitted[:-1], "bias": fitted[-1]}


def _without_origin(config: dict[str, object]) -> dict[str, object]:
    """Return a configuration without the folder that its network came from."""
    return {key: value for key, value in config.items() if key != "_name_or_path"}


def export(work: Path, target: Path) -> int:
    """Write the model to `target`, replacing each file at once, and return its size in bytes."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary)
        write_models(work, folder)
        (folder / "model_index.json").write_text(json.dumps(model_index(), indent=2) + "\n")
        (folder / "preview.json").write_text(json.dumps(preview(work), indent=1) + "\n")
        for config in folder.glob("*/*config.json"):
            config.write_text(json.dumps(_without_origin(json.loads(config.read_text())), indent=2) + "\n")
        written = [path for path in folder.rglob("*") if path.is_file()]
        size_bytes = sum(path.stat().st_size for path in written)
        for path in written:
            destination = target / path.relative_to(folder)
            destination.parent.mkdir(parents=True, exist_ok=True)
            path.chmod(0o644)
            path.replace(destination)
    return size_bytes


def main() -> None:
    """Run `python -m training.export`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder of data and checkpoints")
    parser.add_argument("--target", type=Path, default=DEFAULT_TARGET)
    options = parser.parse_args()
    print(f"{export(options.work, options.target) / 1e6:.1f} MB written to {options.target}")


if __name__ == "__main__":
    main()
