"""Image to image, inpainting and the second pass: against diffusers' pipeline, and by what they must leave alone."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.core.errors import InvalidRequest
from sfumato.core.passes import Hires, Inpainting, MaskedContent, Refiner, ResizeMode, Source
from sfumato.core.requests import GenerationRequest, NoiseSource
from sfumato.engine.denoising import DenoiseLoop, LivePicture
from sfumato.engine.device import Device
from sfumato.engine.families.base import LoadedModel
from sfumato.engine.families.loading import load_model
from sfumato.engine.pipeline import prepare
from tests.engine import tiny
from tests.engine.test_pipeline import clip_states

FLOAT32 = Device(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = tiny.write_folder(tmp_path_factory.mktemp("tiny"))
    return load_model("tiny", str(folder), FLOAT32)


def stored(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def photo(width: int = 64, height: int = 64) -> np.ndarray[Any, Any]:
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([across, down, 255 - across], axis=-1).astype(np.uint8)


def request(**values: Any) -> GenerationRequest:
    defaults: dict[str, Any] = {
        "prompt": "a red apple", "model": "tiny", "width": 64, "height": 64, "steps": 4, "guidance_scale": 5.0,
        "seed": 3, "noise_source": NoiseSource.CPU,
    }  # fmt: skip
    return GenerationRequest(**(defaults | values)).validated()


def finished(
    wanted: GenerationRequest, model: LoadedModel, pictures: dict[str, bytes]
) -> list[tuple[LivePicture, torch.Tensor]]:
    """Run a request to its latents, and its errands as the engine would."""
    loop, done = DenoiseLoop(), {}
    for picture in prepare("job", wanted, lambda name: model, pictures):
        loop.add(picture)
    while (turn := loop.turn()) is not None:
        assert not turn.failed, turn.failed
        done |= {picture.index: (picture, latents) for picture, latents in turn.ended}
        for picture in turn.errands:
            assert picture.errand is not None
            loop.resume(picture, picture.errand.run())
    return [done[index] for index in sorted(done)]


def pixels_of(picture: LivePicture, latents: torch.Tensor) -> np.ndarray[Any, Any]:
    image = Image.fromarray(picture.codec.decode(latents.unsqueeze(0))[0].numpy())
    return np.asarray(picture.finish(image) if picture.finish else image)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_image_to_image_gives_the_latents_of_diffusers_pipeline(model: LoadedModel) -> None:
    from diffusers import EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline

    unet, vae, text = tiny.networks()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=vae, text_encoder=text, tokenizer=None, unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    init = model.codec.encode(torch.from_numpy(photo())[None])
    noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(3))
    pipeline.prepare_latents = lambda image, timestep, *args: scheduler.add_noise(init, noise[None], timestep[:1])
    # Upstream and this engine run one step more than the share of the schedule: int(0.4 * 10) + 1.
    theirs = pipeline(
        prompt_embeds=clip_states(text, "a red apple"), negative_prompt_embeds=clip_states(text, ""),
        image=init, strength=0.5, num_inference_steps=10, guidance_scale=5.0, output_type="latent",
    ).images[0]  # fmt: skip
    wanted = request(steps=10, source=Source(pictures=("a",), strength=0.4))
    ((_, ours),) = finished(wanted, model, {"a": stored(photo())})
    torch.testing.assert_close(ours, theirs, rtol=3e-3, atol=3e-3)


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DDIM", "DPM++ SDE", "DDIM CFG++"])
def test_strength_zero_gives_the_source_back(model: LoadedModel, sampler: str) -> None:
    wanted = request(sampler=sampler, source=Source(pictures=("a",), strength=0.0))
    ((_, latents),) = finished(wanted, model, {"a": stored(photo())})
    torch.testing.assert_close(latents, model.codec.encode(torch.from_numpy(photo())[None])[0])


@pytest.mark.parametrize("sampler", ["Euler a", "Heun", "DDIM", "UniPC"])
def test_a_partial_run_begins_at_the_level_of_its_noise(model: LoadedModel, sampler: str) -> None:
    source = Source(pictures=("a",), strength=0.5)
    (picture,) = prepare(
        "job", request(steps=20, sampler=sampler, source=source), lambda name: model, {"a": stored(photo())}
    )
    picture.begin()
    _, row = picture.waiting()[0]
    init = model.codec.encode(torch.from_numpy(photo())[None])[0]
    deviation = float((row.x - init).std())
    assert deviation == pytest.approx(row.sigma, rel=0.2)
    assert 0.5 < row.sigma < 5.0


def test_pictures_of_a_request_take_their_sources_in_turn(model: LoadedModel) -> None:
    source = Source(pictures=("a", "b"), strength=0.0)
    one, two, three = finished(
        request(image_count=3, source=source), model, {"a": stored(photo()), "b": stored(255 - photo())}
    )
    assert torch.equal(one[1], three[1])
    assert not torch.equal(one[1], two[1])


def test_fixed_steps_run_as_many_steps_as_asked_for(model: LoadedModel) -> None:
    source = Source(pictures=("a",), strength=0.5, runs_all_steps=True)
    (picture,) = prepare("job", request(steps=8, source=source), lambda name: model, {"a": stored(photo())})
    assert picture.evaluations == 8


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DDIM CFG++", "DPM++ 2M SDE"])
@pytest.mark.parametrize("content", list(MaskedContent))
def test_what_the_mask_does_not_show_stays_as_it_was(model: LoadedModel, sampler: str, content: MaskedContent) -> None:
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[16:40, 24:48] = 255
    inpainting = Inpainting(mask="m", blur_x=2, blur_y=2, content=content, only_masked=False)
    source = Source(pictures=("a",), strength=1.0, inpainting=inpainting)
    wanted = request(sampler=sampler, source=source)
    ((picture, latents),) = finished(wanted, model, {"a": stored(photo()), "m": stored(mask)})
    result = pixels_of(picture, latents)
    assert np.array_equal(result[48:], photo()[48:])
    assert np.array_equal(result[:, :16], photo()[:, :16])
    assert not np.array_equal(result[20:36, 28:44], photo()[20:36, 28:44])


def test_painting_only_the_masked_part_keeps_the_size_of_the_source(model: LoadedModel) -> None:
    mask = np.zeros((100, 150), dtype=np.uint8)
    mask[60:80, 100:120] = 255
    inpainting = Inpainting(mask="m", only_masked=True, padding=8, content=MaskedContent.ORIGINAL)
    source = Source(pictures=("a",), inpainting=inpainting)
    ((picture, latents),) = finished(request(source=source), model, {"a": stored(photo(150, 100)), "m": stored(mask)})
    assert latents.shape == (4, 8, 8)
    result = pixels_of(picture, latents)
    assert result.shape == (100, 150, 3)
    assert np.array_equal(result[:40], photo(150, 100)[:40])


def test_an_empty_mask_paints_the_whole_picture(model: LoadedModel) -> None:
    inpainting = Inpainting(mask="m")
    wanted = request(source=Source(pictures=("a",), inpainting=inpainting))
    plain = request(source=Source(pictures=("a",)))
    pictures = {"a": stored(photo()), "m": stored(np.zeros((64, 64)))}
    ((_, masked),), ((_, whole),) = (finished(w, model, pictures) for w in (wanted, plain))
    assert torch.equal(masked, whole)


@pytest.mark.parametrize("mode", list(ResizeMode))
def test_sources_of_any_shape_come_to_the_size_asked_for(model: LoadedModel, mode: ResizeMode) -> None:
    source = Source(pictures=("a",), strength=0.3, resize_mode=mode)
    ((_, latents),) = finished(request(width=96, source=source), model, {"a": stored(photo(77, 130))})
    assert latents.shape == (4, 8, 12)


SECOND_PASS = Hires(width=96, height=96, enlarged_width=96, enlarged_height=96, strength=0.5)


@pytest.mark.parametrize("upscaler", ["Latent", "Latent (nearest-exact)", "Latent (bicubic antialiased)", "Lanczos"])
def test_the_second_pass_is_image_to_image_on_the_enlarged_first(model: LoadedModel, upscaler: str) -> None:
    ((picture, latents),) = finished(request(hires=replace(SECOND_PASS, upscaler=upscaler)), model, {})
    assert latents.shape == (4, 12, 12)
    assert picture.evaluations == 8
    assert picture.evaluations_done == 8


def test_the_second_pass_without_strength_only_enlarges(model: LoadedModel) -> None:
    ((_, small),) = finished(request(), model, {})
    ((_, large),) = finished(request(hires=replace(SECOND_PASS, strength=0.0)), model, {})
    torch.testing.assert_close(large, torch.nn.functional.interpolate(small[None], size=(12, 12), mode="bilinear")[0])


def test_the_second_pass_crops_what_it_enlarged_too_far(model: LoadedModel) -> None:
    wanted = replace(SECOND_PASS, enlarged_width=96, enlarged_height=96, width=64, height=96, strength=0.0)
    ((_, small),) = finished(request(), model, {})
    ((_, cropped),) = finished(request(hires=wanted), model, {})
    whole = torch.nn.functional.interpolate(small[None], size=(12, 12), mode="bilinear")[0]
    torch.testing.assert_close(cropped, whole[:, :, 2:10])


def test_a_given_first_pass_takes_the_place_of_the_first(model: LoadedModel) -> None:
    wanted = replace(SECOND_PASS, first_pass="a", strength=0.0, upscaler="Nearest")
    ((_, latents),) = finished(request(hires=wanted), model, {"a": stored(photo())})
    enlarged = np.array(Image.fromarray(photo()).resize((96, 96), Image.Resampling.NEAREST))
    torch.testing.assert_close(latents, model.codec.encode(torch.from_numpy(enlarged)[None])[0])


def test_second_passes_are_the_same_in_a_batch_and_alone(model: LoadedModel) -> None:
    together = finished(request(image_count=2, hires=SECOND_PASS), model, {})
    ((_, alone),) = finished(request(seed=4, hires=SECOND_PASS), model, {})
    torch.testing.assert_close(together[1][1], alone, rtol=1e-3, atol=1e-3)


def networks_asked(wanted: GenerationRequest, model: LoadedModel) -> list[str]:
    """Return the name of the network that answered each evaluation."""
    models = {"tiny": model, "other": replace(model, name="other")}
    (picture,) = prepare("job", wanted, models.__getitem__, {})
    loop, names = DenoiseLoop(), []
    loop.add(picture)
    while len(loop):
        names.append(picture.waiting()[0][1].network.name)
        loop.turn()
    return names


@pytest.mark.parametrize(("switch_at", "first"), [(0.0, 0), (0.5, 5), (1.0, 10)])
def test_a_refiner_takes_over_at_its_share_of_the_timesteps(model: LoadedModel, switch_at: float, first: int) -> None:
    wanted = request(steps=10, schedule="SGM Uniform", refiner=Refiner(model="other", switch_at=switch_at))
    assert networks_asked(wanted, model) == ["tiny"] * first + ["other"] * (10 - first)


def test_a_refiner_takes_part_in_the_second_of_two_passes_alone(model: LoadedModel) -> None:
    wanted = request(hires=SECOND_PASS, refiner=Refiner(model="other"))
    assert networks_asked(wanted, model) == ["tiny"] * 4 + ["other"] * 4


def test_a_refiner_of_another_kind_of_latents_is_refused(model: LoadedModel) -> None:
    models = {"tiny": model, "other": replace(model, name="other", latent_channels=8)}
    with pytest.raises(InvalidRequest, match="cannot refine"):
        prepare("job", request(refiner=Refiner(model="other")), models.__getitem__, {})
