"""The body of `POST /sdapi/v1/txt2img`: every field of AUTOMATIC1111 1.10.1, in the order the answer echoes them.

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


class Txt2ImgBody(BaseModel):
    """Unknown keys are ignored, as upstream does."""

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
    firstpass_image: Text = None
    comments: Mapping = None
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
        return self.model_dump()
