"""`POST /sdapi/v1/img2img` and the second pass of txt2img: what reaches the engine, and what is refused."""

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from sfumato.core.messages import Generate
from sfumato.core.passes import Hires, Inpainting, MaskedContent, Refiner, ResizeMode, Source
from sfumato.storage.infotext import parse
from tests.api.harness import Api, run_api

IMG2IMG = "/sdapi/v1/img2img"
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 5, "prompt": "a", "seed": 1}


def picture(colour: str = "red", size: tuple[int, int] = (8, 8), kind: str = "png") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


async def img2img(api: Api, **body: Any) -> httpx.Response:
    return await api.client.post(IMG2IMG, json=SMALL | body, headers=api.user.basic)


def last_job(api: Api) -> Generate:
    return [message for message in api.host.sent if isinstance(message, Generate)][-1]


async def test_the_picture_to_begin_from_reaches_the_engine_by_its_name(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await img2img(api, init_images=[picture("blue")], denoising_strength=0.4, resize_mode=1)
        job = last_job(api)
    assert response.status_code == 200
    assert len(response.json()["images"]) == 1
    (name,) = job.pictures
    assert job.request.source == Source(pictures=(name,), strength=0.4, resize_mode=ResizeMode.CROP)
    assert Image.open(io.BytesIO(job.pictures[name])).getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize("text", [f"data:image/png;base64,{picture()}", picture(kind="jpeg"), picture(kind="webp")])
async def test_pictures_come_bare_or_as_data_urls_in_any_format(tmp_path: Path, text: str) -> None:
    async with run_api(tmp_path) as api:
        assert (await img2img(api, init_images=[text])).status_code == 200


async def test_the_mask_and_its_fields_reach_the_engine(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await img2img(
            api,
            init_images=[picture()],
            mask=picture("white"),
            mask_blur=7,
            inpainting_fill=2,
            inpaint_full_res=False,
            inpaint_full_res_padding=3,
            inpainting_mask_invert=1,
            mask_round=False,
        )
        job = last_job(api)
    assert response.status_code == 200
    assert job.request.source is not None
    inpainting = job.request.source.inpainting
    assert inpainting is not None
    assert inpainting == Inpainting(
        mask=inpainting.mask, blur_x=7, blur_y=7, is_soft=True, content=MaskedContent.NOISE, only_masked=False,
        padding=3, is_inverted=True,
    )  # fmt: skip
    assert inpainting.mask in job.pictures


async def test_the_two_axes_of_the_blur_may_differ(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        await img2img(api, init_images=[picture()], mask=picture("white"), mask_blur_x=1, mask_blur_y=9)
        source = last_job(api).request.source
    assert source is not None
    assert source.inpainting is not None
    assert (source.inpainting.blur_x, source.inpainting.blur_y) == (1, 9)


async def test_several_pictures_make_a_batch_of_as_many(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await img2img(api, init_images=[picture("red"), picture("blue")], batch_size=4, n_iter=2)
        job = last_job(api)
    assert len(response.json()["images"]) == 4
    assert job.request.source is not None
    assert [job.request.source.picture(i) for i in range(4)] == [*job.request.source.pictures] * 2


async def test_the_answer_shows_the_pictures_only_when_asked(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        hidden = await img2img(api, init_images=[picture()])
        shown = await img2img(api, init_images=[picture()], include_init_images=True)
    assert hidden.json()["parameters"]["init_images"] is None
    assert shown.json()["parameters"]["init_images"] == [picture()]


async def test_the_infotext_says_how_the_picture_was_painted_over(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await img2img(
            api, init_images=[picture()], mask=picture("white"), mask_blur=3, inpaint_full_res_padding=16,
            override_settings={"img2img_extra_noise": 0.1, "initial_noise_multiplier": 0.9},
        )  # fmt: skip
    text = Image.open(io.BytesIO(base64.b64decode(response.json()["images"][0]))).info["parameters"]
    found = parse(text)
    assert {key: found[key] for key in ("Denoising strength", "Mask blur", "Inpaint area", "Masked content")} == {
        "Denoising strength": "0.75", "Mask blur": "3", "Inpaint area": "Only masked", "Masked content": "fill",
    }  # fmt: skip
    assert (found["Masked area padding"], found["Noise multiplier"], found["Extra noise"]) == ("16", "0.9", "0.1")


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 404, "Init image not found"),
        ({"init_images": []}, 404, "Init image not found"),
        ({"init_images": ["!!!"]}, 400, "Invalid encoded image"),
        ({"init_images": [base64.b64encode(b"<svg/>").decode()]}, 400, "Invalid encoded image"),
        ({"init_images": ["http://127.0.0.1/x.png"]}, 400, "Requests not allowed"),
        ({"init_images": ["file:///etc/passwd"]}, 400, "Invalid encoded image"),
        ({"init_images": [picture()], "mask": "x"}, 400, "Invalid encoded image"),
        ({"init_images": [picture()], "resize_mode": 4}, 400, "resize_mode"),
        ({"init_images": [picture()], "inpainting_fill": -1, "mask": picture()}, 400, "inpainting_fill"),
        ({"init_images": [picture()], "denoising_strength": 1.5}, 400, "denoising_strength"),
        ({"init_images": [picture()], "mask": picture(), "mask_blur": 100000}, 400, "mask_blur_x"),
        ({"init_images": [picture()] * 3, "batch_size": 2}, 400, "init_images"),
        ({"init_images": [picture()], "latent_mask": picture()}, 400, "latent_mask"),
    ],
)
async def test_what_cannot_be_done_is_refused_and_costs_nothing(
    tmp_path: Path, body: dict[str, Any], status: int, text: str
) -> None:
    async with run_api(tmp_path) as api:
        response = await img2img(api, **body)
        sent = [message for message in api.host.sent if isinstance(message, Generate)]
    assert response.status_code == status
    assert text in response.text
    assert not sent


async def test_a_second_pass_reaches_the_engine_with_upstreams_sizes(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(
            **SMALL, enable_hr=True, hr_scale=1.5, hr_upscaler="Latent (bicubic)", hr_second_pass_steps=3,
            denoising_strength=0.6, hr_sampler_name="DPM++ 2M", hr_scheduler="karras", hr_prompt="b",
            hr_checkpoint_name="Use same checkpoint",
        )  # fmt: skip
        job = last_job(api)
    assert response.status_code == 200
    assert job.request.hires == Hires(
        width=96, height=96, enlarged_width=96, enlarged_height=96, upscaler="Latent (bicubic)", steps=3,
        strength=0.6, scale=1.5, sampler="DPM++ 2M", schedule="Karras", prompt="b",
    )  # fmt: skip


async def test_a_second_pass_without_strength_takes_the_nominal_default(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        await api.txt2img(**SMALL, enable_hr=True)
        hires = last_job(api).request.hires
    assert hires is not None
    assert (hires.strength, hires.upscaler, hires.width) == (0.75, "Latent", 128)


async def test_a_given_first_pass_is_stored_for_the_engine(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        await api.txt2img(**SMALL, enable_hr=True, firstpass_image=picture())
        job = last_job(api)
    assert job.request.hires is not None
    assert [job.request.hires.first_pass] == list(job.pictures)


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"hr_upscaler": "ESRGAN_4x"}, 400), ({"hr_checkpoint_name": "nothing"}, 400), ({"hr_scale": 100}, 400)],
)
async def test_a_second_pass_that_cannot_be_is_refused(tmp_path: Path, fields: dict[str, Any], status: int) -> None:
    async with run_api(tmp_path) as api:
        assert (await api.txt2img(**SMALL, enable_hr=True, **fields)).status_code == status


async def test_a_refiner_reaches_the_engine_and_the_infotext(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(**SMALL, refiner_checkpoint="test-model", refiner_switch_at=0.8)
        refiner = last_job(api).request.refiner
    assert refiner == Refiner(model="test-model", switch_at=0.8, title="test-model")
    found = parse(Image.open(io.BytesIO(base64.b64decode(response.json()["images"][0]))).info["parameters"])
    assert (found["Refiner"], found["Refiner switch at"]) == ("test-model", "0.8")
