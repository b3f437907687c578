"""The bodies of `POST /sdapi/v1/txt2img` and `/img2img`: every field of AUTOMATIC1111 1.10.1.

Defaults are the published ones and are echoed as they stand here, `0` and not `0.0`.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from sfumato.api.sdapi.coercion import (
    Integer,
    Mapping,
    Number,
    RequiredMapping,
    RequiredSequence,
    RequiredText,
    RequiredTruth,
    Seed,
    Text,
    Texts,
    Truth,
)

_ECHO_ORDER = (
    "prompt", "negative_prompt", "styles", "seed", "subseed", "subseed_strength", "seed_resize_from_h",
    "seed_resize_from_w", "sampler_name", "scheduler", "batch_size", "n_iter", "steps", "cfg_scale", "width",
    "height", "restore_faces", "tiling", "do_not_save_samples", "do_not_save_grid", "eta", "denoising_strength",
    "s_min_uncond", "s_churn", "s_tmax", "s_tmin", "s_noise", "override_settings",
    "override_settings_restore_afterwards", "refiner_checkpoint", "refiner_switch_at", "disable_extra_networks",
    "firstpass_image", "comments", "init_images", "resize_mode", "image_cfg_scale", "mask", "mask_blur_x",
    "mask_blur_y", "mask_blur", "mask_round", "inpainting_fill", "inpaint_full_res", "inpaint_full_res_padding",
    "inpainting_mask_invert", "initial_noise_multiplier", "latent_mask", "include_init_images", "enable_hr",
    "firstphase_width", "firstphase_height", "hr_scale", "hr_upscaler", "hr_second_pass_steps", "hr_resize_x",
    "hr_resize_y", "hr_checkpoint_name", "hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt",
    "force_task_id", "sampler_index", "script_name", "script_args", "send_images", "save_images", "alwayson_scripts",
    "infotext",
)  # fmt: skip


class GenerationBody(BaseModel):
    """The fields that both have. Unknown keys are ignored, as upstream does."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    prompt: Text = ""
    negative_prompt: Text = ""
    styles: Texts = None
    seed: Seed = -1
    subseed: Seed = -1
    subseed_strength: Number = 0
    seed_resize_from_h: Integer = -1
    seed_resize_from_w: Integer = -1
    sampler_name: Text = None
    scheduler: Text = None
    batch_size: Integer = 1
    n_iter: Integer = 1
    steps: Integer = 50
    cfg_scale: Number = 7.0
    width: Integer = 512
    height: Integer = 512
    restore_faces: Truth = None
    tiling: Truth = None
    do_not_save_samples: Truth = False
    do_not_save_grid: Truth = False
    eta: Number = None
    denoising_strength: Number = None
    s_min_uncond: Number = None
    s_churn: Number = None
    s_tmax: Number = None
    s_tmin: Number = None
    s_noise: Number = None
    override_settings: Mapping = None
    override_settings_restore_afterwards: Truth = True
    refiner_checkpoint: Text = None
    refiner_switch_at: Number = None
    disable_extra_networks: Truth = False
    comments: Mapping = None
    force_task_id: Text = None
    sampler_index: RequiredText = "Euler"
    script_name: Text = None
    script_args: RequiredSequence = []
    send_images: RequiredTruth = True
    save_images: RequiredTruth = False
    alwayson_scripts: RequiredMapping = {}
    infotext: Text = None

    def echo(self) -> dict[str, Any]:
        """Return what the answer's `parameters` holds: the request as understood, nulls kept, the seed still -1."""
        fields = self.model_dump()
        return {name: fields[name] for name in _ECHO_ORDER if name in fields}


class Txt2ImgBody(GenerationBody):
    """What text to image has besides: a second pass."""

    firstpass_image: Text = None
    enable_hr: Truth = False
    firstphase_width: Integer = 0
    firstphase_height: Integer = 0
    hr_scale: Number = 2.0
    hr_upscaler: Text = None
    hr_second_pass_steps: Integer = 0
    hr_resize_x: Integer = 0
    hr_resize_y: Integer = 0
    hr_checkpoint_name: Text = None
    hr_sampler_name: Text = None
    hr_scheduler: Text = None
    hr_prompt: Text = ""
    hr_negative_prompt: Text = ""


class Img2ImgBody(GenerationBody):
    """What image to image has besides: the pictures and the mask. `latent_mask` cannot be used over the API."""

    denoising_strength: Number = 0.75
    init_images: Texts = None
    resize_mode: Integer = 0
    image_cfg_scale: Number = None
    mask: Text = None
    mask_blur_x: Integer = 4
    mask_blur_y: Integer = 4
    mask_blur: Integer = None
    mask_round: Truth = True
    inpainting_fill: Integer = 0
    inpaint_full_res: Truth = True
    inpaint_full_res_padding: Integer = 0
    inpainting_mask_invert: Integer = 0
    initial_noise_multiplier: Number = None
    latent_mask: Text = None
    include_init_images: Truth = False

    def echo(self) -> dict[str, Any]:
        """Return the answer's `parameters`, without the pictures unless they are asked for."""
        fields = super().echo()
        return fields if self.include_init_images else fields | {"init_images": None, "mask": None}
