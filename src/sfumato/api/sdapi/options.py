"""`/options` and `override_settings`: the option keys clients read, and the few that can be changed.

The checkpoint and the VAE are each caller's own choice, kept in memory until the server stops: with one for all, two
people who alternate models would change each other's pictures. Every other option is fixed; a new value is not taken
and is named in the `X-Sfumato-Ignored` header.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sfumato.api.sdapi import sampling_options
from sfumato.api.sdapi.prompt_options import KEYS, PromptChoices
from sfumato.api.sdapi.sampling_options import SamplingKeys, read_sampling_keys
from sfumato.core.errors import NotSupported
from sfumato.core.models import ModelInfo
from sfumato.core.requests import AUTOMATIC_VAE, NO_VAE, NoiseSource
from sfumato.models.registry import ModelRegistry

CHECKPOINT = "sd_model_checkpoint"
CHECKPOINT_HASH = "sd_checkpoint_hash"
VAE = "sd_vae"

FIXED: dict[str, Any] = {
    "samples_save": True,
    "samples_format": "png",
    "grid_save": True,
    "grid_format": "png",
    "return_grid": True,
    "grid_only_if_multiple": True,
    "n_rows": -1.0,
    "grid_background_color": "#ffffff",
    "enable_pnginfo": True,
    "jpeg_quality": 80.0,
    "webp_lossless": False,
    "outdir_samples": "",
    "outdir_txt2img_samples": "",
    "outdir_img2img_samples": "",
    "outdir_extras_samples": "",
    "outdir_grids": "",
    "save_to_dirs": True,
    "save_incomplete_images": True,
    "face_restoration": False,
    "face_restoration_model": "CodeFormer",
    "code_former_weight": 0.5,
    "upscaler_for_img2img": None,
    "img2img_fix_steps": False,
    "tiling": False,
    "randn_source": "GPU",
    "sdxl_crop_top": 0,
    "sdxl_crop_left": 0,
    "live_previews_enable": False,
    "show_progress_every_n_steps": 10.0,
    "show_progress_type": "Approx NN",
    "live_preview_content": "Prompt",
    "send_seed": True,
    **sampling_options.DEFAULTS.model_dump(mode="json"),
    "uni_pc_order": 3.0,
    "token_merging_ratio": 0.0,
}
"""Options of one value only, as GET shows them (whole numbers as floats, as upstream does when they are not zero)."""

_NOISE = {"gpu": NoiseSource.GPU, "nv": NoiseSource.NV, "cpu": NoiseSource.CPU}


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What `override_settings` of one request comes to; `ignored` names the keys without effect here."""

    model: ModelInfo
    vae: str
    noise_source: NoiseSource
    sampling: SamplingKeys
    prompting: PromptChoices
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class CheckpointChoices:
    """What each caller of this dialect has chosen, by user: a model, a VAE, and how prompts are read."""

    registry: ModelRegistry
    _chosen: dict[UUID, ModelInfo] = field(default_factory=dict)
    _vaes: dict[UUID, str] = field(default_factory=dict)
    _prompting: dict[UUID, PromptChoices] = field(default_factory=dict)

    def of(self, user_id: UUID) -> ModelInfo:
        """Return the caller's model: their choice, or the installation's default."""
        return self._chosen.get(user_id, self.registry.default)

    def choose(self, user_id: UUID, model: ModelInfo) -> None:
        """Remember a caller's model until the server stops."""
        self._chosen[user_id] = model

    def vae_of(self, user_id: UUID) -> str:
        """Return the caller's VAE: "Automatic", "None" or a file's name."""
        return self._vaes.get(user_id, AUTOMATIC_VAE)

    def choose_vae(self, user_id: UUID, choice: str) -> None:
        """Remember a caller's VAE until the server stops."""
        self._vaes[user_id] = choice

    def prompting_of(self, user_id: UUID) -> PromptChoices:
        """Return how the caller's prompts are read."""
        return self._prompting.get(user_id, PromptChoices())

    def choose_prompting(self, user_id: UUID, prompting: PromptChoices) -> None:
        """Remember how a caller's prompts are read until the server stops."""
        self._prompting[user_id] = prompting


def show(choices: CheckpointChoices, user_id: UUID) -> dict[str, Any]:
    """Return every option with its value, for this caller."""
    model = choices.of(user_id)
    own = {CHECKPOINT: model.title, CHECKPOINT_HASH: model.sha256 or "", VAE: choices.vae_of(user_id)}
    return {**own, **choices.prompting_of(user_id).shown(), **FIXED}


def change(choices: CheckpointChoices, user_id: UUID, wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """Apply what a POST asks and return the keys that were not taken.

    The values GET shows are always accepted, since clients send the whole object back. Raises `UnknownModel`, and
    `InvalidRequest` for a bad value.
    """
    prompting = choices.prompting_of(user_id).changed(wanted)
    if wanted.get(CHECKPOINT) is not None:
        choices.choose(user_id, choices.registry.find(str(wanted[CHECKPOINT])))
    if wanted.get(VAE) is not None:
        choices.choose_vae(user_id, _vae_choice(choices, choices.of(user_id), str(wanted[VAE])))
    choices.choose_prompting(user_id, prompting)
    return _without_effect(wanted, {CHECKPOINT, CHECKPOINT_HASH, VAE, *KEYS})


def read_overrides(choices: CheckpointChoices, user_id: UUID, wanted: Mapping[str, Any]) -> Overrides:
    """Read one request's `override_settings`.

    Raises `UnknownModel` for a model or VAE that is not there (upstream silently takes the current one),
    `NotSupported` for a picture format or noise source of later versions, and `InvalidRequest` for a bad value.
    """
    model = choices.of(user_id)
    if wanted.get(CHECKPOINT):
        model = choices.registry.find(str(wanted[CHECKPOINT]))
    vae = choices.vae_of(user_id)
    if wanted.get(VAE) is not None:
        vae = _vae_choice(choices, model, str(wanted[VAE]))
    if str(wanted.get("samples_format") or "png").casefold() != "png":
        raise NotSupported(
            "Invalid image format", field="samples_format", hint="This version of Sfumato sends PNG only."
        )
    source = str(wanted.get("randn_source") or "GPU").casefold()
    if source not in _NOISE:
        raise NotSupported("randn_source must be GPU, CPU or NV.", field="randn_source")
    known = {CHECKPOINT, CHECKPOINT_HASH, VAE, "samples_format", "randn_source", *SamplingKeys.model_fields, *KEYS}
    return Overrides(
        model=model,
        vae=vae,
        noise_source=_NOISE[source],
        sampling=read_sampling_keys(wanted),
        prompting=choices.prompting_of(user_id).changed(wanted),
        ignored=_without_effect(wanted, known),
    )


def _vae_choice(choices: CheckpointChoices, model: ModelInfo, text: str) -> str:
    """Return a choice of VAE as it is shown: a name as its file has it. Raises `UnknownModel`."""
    for word in (AUTOMATIC_VAE, NO_VAE):
        if text.strip().casefold() in ("", word.casefold()):
            return word
    vae = choices.registry.find_vae(text, model)
    return vae.name if vae else NO_VAE


def _without_effect(wanted: Mapping[str, Any], known: set[str]) -> tuple[str, ...]:
    asked = ((str(key), value) for key, value in wanted.items() if key not in known and value is not None)
    return tuple(key for key, value in asked if key not in FIXED or value != FIXED[key])
