"""Whole passes against diffusers' own pipeline on the same random networks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfumato.core.requests import GenerationRequest, NoiseSource, ScheduleOptions
from sfumato.engine.denoising import DenoiseLoop
from sfumato.engine.device import Device
from sfumato.engine.families.base import LoadedModel
from sfumato.engine.families.loading import load_model
from sfumato.engine.families.text import shipped_clip_tokenizer
from sfumato.engine.pipeline import txt2img
from sfumato.engine.sampling.schedules import uniform
from tests.engine import tiny

FLOAT32 = Device(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load_model("tiny", str(folder), FLOAT32)


def latents_of(request: GenerationRequest, model: LoadedModel) -> dict[int, torch.Tensor]:
    loop, done = DenoiseLoop(), {}
    for picture in txt2img("job", request, model):
        loop.add(picture)
    while (turn := loop.turn()) is not None:
        assert not turn.failed
        done |= {picture.index: latents for picture, latents in turn.ended}
    return done


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_text_to_image_gives_the_latents_of_diffusers_pipeline(model: LoadedModel) -> None:
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

    unet, vae, text = tiny.networks()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=None, unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    request = GenerationRequest(
        prompt="a red apple", negative_prompt="blurry", model="tiny", width=64, height=96, steps=6,
        guidance_scale=6.0, seed=11, noise_source=NoiseSource.CPU,
    )  # fmt: skip
    theirs = pipeline(
        prompt_embeds=clip_states(text, "a red apple"), negative_prompt_embeds=clip_states(text, "blurry"),
        width=64, height=96, guidance_scale=6.0, output_type="latent",
        latents=torch.randn((1, 4, 12, 8), generator=torch.Generator().manual_seed(11)),
        sigmas=[*uniform(model.denoiser.levels, 6, ScheduleOptions()).tolist(), 0.0],
    ).images[0]  # fmt: skip
    ours = latents_of(request, model)[0]
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3)


def clip_states(text: Any, prompt: str) -> torch.Tensor:
    """Return a short prompt's states by the reference text network, framed and padded by hand."""
    ids = shipped_clip_tokenizer().encode(prompt, add_special_tokens=False).ids
    return text(torch.tensor([[49406, *ids, *[49407] * (76 - len(ids))]])).last_hidden_state


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "DDIM CFG++", "LCM"])
def test_picture_i_of_a_request_is_the_request_for_seed_plus_i(model: LoadedModel, sampler: str) -> None:
    def request(seed: int, count: int) -> GenerationRequest:
        return GenerationRequest(
            prompt="x", model="tiny", width=64, height=64, steps=4, seed=seed, image_count=count, sampler=sampler
        )

    together = latents_of(request(5, 3), model)
    for index in range(3):
        torch.testing.assert_close(together[index], latents_of(request(5 + index, 1), model)[0], rtol=1e-3, atol=1e-3)


def test_prompts_longer_than_a_chunk_change_the_picture_to_their_end(model: LoadedModel) -> None:
    long = "an apple and " * 40
    one, other = (
        latents_of(GenerationRequest(prompt=p, model="tiny", width=64, height=64, steps=2), model)[0]
        for p in (long + "a pear", long + "a bear")
    )
    assert not torch.equal(one, other)


def test_bfloat16_stays_close_to_float32(folder: Path, model: LoadedModel) -> None:
    bfloat16 = load_model("tiny", str(folder), Device(torch.device("cpu"), torch.bfloat16))
    request = GenerationRequest(prompt="a cat", model="tiny", width=256, height=256, steps=4, guidance_scale=3.0)
    exact, rounded = (latents_of(request, m)[0] for m in (model, bfloat16))
    error = float(np.linalg.norm(exact - rounded) / np.linalg.norm(exact))
    assert error < 0.05
