"""Every family: whole passes against diffusers' own pipelines, and single files against the folders they came from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

from sfumato.core.requests import GenerationRequest, NoiseSource, PromptSyntax, ScheduleOptions
from sfumato.engine.conditioning import Conditioning
from sfumato.engine.denoising import DenoiseLoop
from sfumato.engine.device import Device
from sfumato.engine.families.base import Denoiser, LoadedModel, Prediction
from sfumato.engine.families.levels import noise_levels
from sfumato.engine.families.loading import load_model
from sfumato.engine.families.prediction import measured_prediction
from sfumato.engine.families.text import shipped_clip_tokenizer
from sfumato.engine.pipeline import txt2img
from sfumato.engine.sampling.schedules import NoiseLevels, uniform
from tests.engine import tiny

FLOAT32 = Device(torch.device("cpu"), torch.float32)
KINDS = {"sd1": tiny.SD1, "inpainting": tiny.INPAINTING, "sd2": tiny.SD2, "sdxl": tiny.SDXL, "refiner": tiny.REFINER}
PROMPT, NEGATIVE = "a red apple", "blurry"
WIDTH, HEIGHT, STEPS, SEED, SCALE = 64, 96, 5, 11, 6.0

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def ours(model: LoadedModel, negative: str = NEGATIVE) -> torch.Tensor:
    request = GenerationRequest(
        prompt=PROMPT, negative_prompt=negative, model="m", width=WIDTH, height=HEIGHT, steps=STEPS,
        guidance_scale=SCALE, seed=SEED, noise_source=NoiseSource.CPU,
    )  # fmt: skip
    loop = DenoiseLoop()
    for picture in txt2img("job", request, model):
        loop.add(picture)
    while (turn := loop.turn()) is not None:
        assert not turn.failed
        if turn.ended:
            return turn.ended[0][1]
    raise AssertionError("no picture")


def theirs(pipeline: Any, model: LoadedModel, **inputs: Any) -> torch.Tensor:
    """Run diffusers' pipeline from the same noise over the same noise levels."""
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn((1, 4, HEIGHT // 8, WIDTH // 8), generator=torch.Generator().manual_seed(SEED))
    latents: torch.Tensor = pipeline(
        width=WIDTH, height=HEIGHT, guidance_scale=SCALE, output_type="latent", latents=noise,
        sigmas=[*uniform(model.denoiser.levels, STEPS, ScheduleOptions()).tolist(), 0.0], **inputs,
    ).images[0]  # fmt: skip
    return latents


def euler(**config: Any) -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace", **config
    )


def framed(prompt: str, padding: int) -> torch.Tensor:
    ids = shipped_clip_tokenizer().encode(prompt, add_special_tokens=False).ids
    return torch.tensor([[49406, *ids, 49407, *[padding] * (75 - len(ids))]])


def load(tmp_path: Path, kind: tiny.Kind) -> LoadedModel:
    return load_model("m", str(tiny.write_folder(tmp_path / "m", kind)), FLOAT32)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)


def test_stable_diffusion_2_with_velocity_gives_the_latents_of_diffusers_pipeline(tmp_path: Path) -> None:
    unet, vae, texts = tiny.networks_of(tiny.SD2)
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=texts["text_encoder"], tokenizer=None, unet=unet, safety_checker=None,
        scheduler=euler(prediction_type="v_prediction"), feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    states = [texts["text_encoder"](framed(text, 0)).last_hidden_state for text in (PROMPT, NEGATIVE)]
    model = load(tmp_path, tiny.SD2)
    close(ours(model), theirs(pipeline, model, prompt_embeds=states[0], negative_prompt_embeds=states[1]))


def test_a_network_distilled_with_guidance_is_told_the_scale_as_in_diffusers_pipeline(tmp_path: Path) -> None:
    unet, vae, texts = tiny.networks_of(tiny.DISTILLED)
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=texts["text_encoder"], tokenizer=None, unet=unet, safety_checker=None,
        scheduler=euler(), feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    states = texts["text_encoder"](framed(PROMPT, 49407)).last_hidden_state
    model = load(tmp_path, tiny.DISTILLED)
    close(ours(model), theirs(pipeline, model, prompt_embeds=states))


@pytest.mark.parametrize("negative", [NEGATIVE, ""])
def test_stable_diffusion_xl_gives_the_latents_of_diffusers_pipeline(negative: str, tmp_path: Path) -> None:
    unet, vae, texts = tiny.networks_of(tiny.SDXL)
    pipeline = StableDiffusionXLPipeline(
        vae=vae, text_encoder=texts["text_encoder"], text_encoder_2=texts["text_encoder_2"], tokenizer=None,
        tokenizer_2=None, unet=unet, scheduler=euler(), add_watermarker=False,
    )  # fmt: skip
    states, summaries = zip(*(xl_conditioning(texts, text) for text in (PROMPT, negative)), strict=True)
    away = (states[1], summaries[1]) if negative else (torch.zeros_like(states[1]), torch.zeros_like(summaries[1]))
    model = load(tmp_path, tiny.SDXL)
    expected = theirs(
        pipeline, model, prompt_embeds=states[0], pooled_prompt_embeds=summaries[0],
        negative_prompt_embeds=away[0], negative_pooled_prompt_embeds=away[1],
    )  # fmt: skip
    close(ours(model, negative), expected)


def xl_conditioning(texts: dict[str, Any], prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
    first = texts["text_encoder"](framed(prompt, 49407), output_hidden_states=True).hidden_states[-2]
    second = texts["text_encoder_2"](framed(prompt, 0), output_hidden_states=True)
    return torch.cat([first, second.hidden_states[-2]], dim=-1), second.text_embeds


def inpainting_pipeline() -> StableDiffusionInpaintPipeline:
    unet, vae, texts = tiny.networks_of(tiny.INPAINTING)
    return StableDiffusionInpaintPipeline(
        vae=vae, text_encoder=texts["text_encoder"], tokenizer=None, unet=unet, safety_checker=None,
        scheduler=euler(), feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def test_an_inpainting_network_paints_a_whole_picture_as_diffusers_pipeline_does(tmp_path: Path) -> None:
    pipeline, model = inpainting_pipeline(), load(tmp_path, tiny.INPAINTING)
    states = [pipeline.text_encoder(framed(text, 49407)).last_hidden_state for text in (PROMPT, NEGATIVE)]
    channels = model.canvas(WIDTH, HEIGHT).channels
    assert channels is not None
    assert (channels[0] == 1).all()
    expected = theirs(
        pipeline, model, prompt_embeds=states[0], negative_prompt_embeds=states[1],
        image=torch.zeros(1, 3, HEIGHT, WIDTH), mask_image=torch.ones(1, 1, HEIGHT, WIDTH),
        # Not encoded again: a gray picture in networks this small is all rounding errors, magnified by the norms.
        masked_image_latents=channels[None, 1:],
    )  # fmt: skip
    close(ours(model), expected)


def test_an_inpainting_network_gets_the_mask_and_the_picture_without_what_is_masked(tmp_path: Path) -> None:
    pipeline, model = inpainting_pipeline(), load(tmp_path, tiny.INPAINTING)
    picture = torch.randint(0, 256, (HEIGHT, WIDTH, 3), generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(HEIGHT, WIDTH)
    mask[24:72, 16:] = 1
    normed = picture.permute(2, 0, 1)[None] / 127.5 - 1
    latents = pipeline.vae.encode(normed * (mask < 0.5)).latent_dist.mode() * pipeline.vae.config.scaling_factor
    small, expected = pipeline.prepare_mask_latents(
        mask[None, None], latents, 1, HEIGHT, WIDTH, torch.float32, torch.device("cpu"), None, False
    )
    torch.testing.assert_close(
        model.picture_channels(picture, mask), torch.cat([small, expected], dim=1)[0], rtol=1e-4, atol=1e-4
    )


def test_the_refiner_is_told_sizes_and_an_aesthetic_score(tmp_path: Path) -> None:
    unet, _, texts = tiny.networks_of(tiny.REFINER)
    model = load(tmp_path, tiny.REFINER)
    second = texts["text_encoder_2"](framed(NEGATIVE, 0), output_hidden_states=True)
    x, timestep = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8), torch.tensor([500])
    sigma = model.denoiser.levels.sigmas[timestep]
    told = {"text_embeds": second.text_embeds, "time_ids": torch.tensor([[HEIGHT, WIDTH, 0, 0, 2.5]])}
    expected = unet(
        x / (sigma**2 + 1).sqrt().float(), timestep, encoder_hidden_states=second.hidden_states[-2],
        added_cond_kwargs=told,
    ).sample  # fmt: skip
    prompt = model.prompts.encode(NEGATIVE, PromptSyntax.PLAIN)
    conditioning = model.canvas(WIDTH, HEIGHT).conditioned(prompt, negative_prompt=NEGATIVE)
    torch.testing.assert_close(
        model.denoiser.output(x, sigma, Conditioning.stack([conditioning])), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_single_file_loads_to_the_same_networks_as_the_folder(kind: tiny.Kind, tmp_path: Path) -> None:
    file = tiny.write_single_file(tmp_path / "m.safetensors", kind)
    one, other = load(tmp_path, kind), load_model("m", str(file), FLOAT32)
    torch.testing.assert_close(ours(one), ours(other))
    x = torch.randn(1, 4, 8, 8)
    pictures = [m.codec.decode(x).int() for m in (one, other)]
    torch.testing.assert_close(*pictures, atol=1, rtol=0)  # a value half-way between two bytes may fall on either


@pytest.mark.parametrize(
    ("metadata", "note", "prediction"),
    [
        ({"modelspec.prediction_type": "epsilon"}, None, Prediction.EPSILON),
        (None, 'model:\n  params:\n    parameterization: "v"\n', Prediction.VELOCITY),
        ({"format": "pt"}, "model:\n  params:\n    parameterization: eps\n", Prediction.EPSILON),
        (None, None, Prediction.VELOCITY),
    ],
    ids=["metadata", "velocity beside", "noise beside", "measured"],
)
def test_what_a_file_predicts_is_told_by_notes_or_measured(
    metadata: dict[str, str] | None, note: str | None, prediction: Prediction, tmp_path: Path
) -> None:
    file = tiny.write_single_file(tmp_path / "m.safetensors", tiny.SD2, metadata)
    if note:
        (tmp_path / "m.yaml").write_text(note)
    assert load_model("m", str(file), FLOAT32).denoiser.prediction is prediction


def test_levels_of_zero_terminal_signal_are_those_of_diffusers() -> None:
    scheduler = euler(rescale_betas_zero_snr=True)
    levels = noise_levels({"rescale_betas_zero_snr": True})
    signal = scheduler.alphas_cumprod.double()
    torch.testing.assert_close(levels.sigmas, ((1 - signal) / signal).sqrt(), rtol=1e-3, atol=1e-4)
    assert levels.sigma_max == pytest.approx(4096, rel=1e-3)


def test_a_network_that_gives_noise_back_is_found_to_predict_it() -> None:
    denoiser = Denoiser(
        lambda x, *_: x, levels=NoiseLevels.scaled_linear(), prediction=Prediction.VELOCITY, dtype=torch.float32,
        device=torch.device("cpu"),
    )  # fmt: skip
    assert measured_prediction(denoiser, Conditioning(torch.zeros(77, 4)), (4, 8, 8)) is Prediction.EPSILON
