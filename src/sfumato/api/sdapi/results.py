"""The answer of txt2img: pictures in base64, the echo of the request, and `info`, a JSON text within the JSON."""

import asyncio
import base64
import io
import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from PIL import Image, PngImagePlugin

from sfumato.api.sdapi.fields import GenerationBody
from sfumato.api.sdapi.translation import batch_size
from sfumato.core.jobs import Job
from sfumato.core.models import ModelInfo
from sfumato.core.requests import NO_VAE, GenerationRequest
from sfumato.core.sampling import effective_schedule, find_sampler
from sfumato.storage.images import PARAMETERS_KEY
from sfumato.storage.infotext import build, extra_fields
from sfumato.storage.objects import ObjectStore

PRODUCT = "sfumato"


async def render(
    body: GenerationBody, job: Job, model: ModelInfo, objects: ObjectStore, version: str
) -> dict[str, Any]:
    """Return the whole answer for a job that has ended; one that was interrupted early has few pictures or none."""
    pictures = [await objects.get(output.object_key) for output in job.outputs]
    infotexts = [output.infotext for output in job.outputs] or [build(job.request, model=model, version=version)]
    has_grid = body.save_images and len(pictures) > 1
    if has_grid:
        pictures.insert(0, await asyncio.to_thread(make_grid, pictures, infotexts[0]))
        infotexts.insert(0, infotexts[0])
    info = _info(body, job, model, infotexts=infotexts, index_of_first_image=int(has_grid), version=version)
    return {
        "images": [base64.b64encode(picture).decode() for picture in pictures] if body.send_images else [],
        "parameters": body.echo(),
        "info": json.dumps(info),
    }


def make_grid(pictures: Sequence[bytes], infotext: str) -> bytes:
    """Lay pictures of one size out on white, as square as their number allows, row by row."""
    images = [Image.open(io.BytesIO(picture)) for picture in pictures]
    rows = round(math.sqrt(len(images)))
    columns = math.ceil(len(images) / rows)
    width, height = images[0].size
    grid = Image.new("RGB", (columns * width, rows * height), "#ffffff")
    for place, image in enumerate(images):
        grid.paste(image, (place % columns * width, place // columns * height))
    text = PngImagePlugin.PngInfo()
    text.add_text(PARAMETERS_KEY, infotext)
    buffer = io.BytesIO()
    grid.save(buffer, "png", pnginfo=text, compress_level=1)
    return buffer.getvalue()


def _info(
    body: GenerationBody, job: Job, model: ModelInfo, *, infotexts: list[str], index_of_first_image: int, version: str
) -> dict[str, Any]:
    """Return `info` with all of upstream's keys in its order."""
    wanted = job.request
    count = wanted.image_count
    variation = wanted.variation
    subseed = body.subseed if body.subseed not in (None, -1) else wanted.seed
    subseed = variation.subseed if variation else subseed
    return {
        "prompt": wanted.prompt,
        "all_prompts": [wanted.prompt] * count,
        "negative_prompt": wanted.negative_prompt,
        "all_negative_prompts": [wanted.negative_prompt] * count,
        "seed": wanted.seed,
        "all_seeds": [wanted.seed_of(i) for i in range(count)],
        "subseed": subseed,
        "all_subseeds": [subseed + i for i in range(count)],
        "subseed_strength": variation.strength if variation else 0.0,
        "width": wanted.width if body.width is None else body.width,
        "height": wanted.height if body.height is None else body.height,
        "sampler_name": wanted.sampler,
        "cfg_scale": wanted.guidance_scale,
        "steps": wanted.steps,
        "batch_size": batch_size(body),
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": model.name,
        "sd_model_hash": model.short_hash,
        "sd_vae_name": None if wanted.vae == NO_VAE else wanted.vae,
        "sd_vae_hash": wanted.vae_hash or None,
        "seed_resize_from_w": body.seed_resize_from_w,
        "seed_resize_from_h": body.seed_resize_from_h,
        "denoising_strength": body.denoising_strength,
        "extra_generation_params": _extra_parameters(wanted),
        "index_of_first_image": index_of_first_image,
        "infotexts": infotexts,
        "styles": body.styles or [],
        "job_timestamp": timestamp(job.started_at or job.created_at),
        "clip_skip": wanted.prompt_options.clip_skip,
        "is_using_inpainting_conditioning": wanted.source is not None and wanted.source.inpainting is not None,
        "version": f"{PRODUCT} {version}",
    }


def timestamp(moment: datetime) -> str:
    """Write a time as upstream does, by the server's own clock."""
    return f"{moment.astimezone():%Y%m%d%H%M%S}"


def _extra_parameters(wanted: GenerationRequest) -> dict[str, Any]:
    sampler, schedule = find_sampler(wanted.sampler, wanted.schedule)
    return {"Schedule type": effective_schedule(sampler, schedule), **extra_fields(wanted)}
