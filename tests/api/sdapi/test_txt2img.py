"""`POST /sdapi/v1/txt2img`: the answer, the seeds, the grid, and what ends a request early."""

import asyncio
import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from PIL import Image

from sfumato.core.jobs import JobStatus
from sfumato.core.messages import Cancel, Canceled, Finished, Generate, Started
from sfumato.core.requests import (
    GenerationRequest,
    GuidanceSkips,
    NoiseSource,
    PromptSyntax,
    SamplerOptions,
    ScheduleOptions,
    SeedResize,
    UniPCOptions,
    UniPCSpacing,
    UniPCVariant,
    Variation,
)
from sfumato.storage.infotext import parse
from sfumato.storage.jobs import get_job
from tests.api.harness import TXT2IMG, Api, make_user, run_api, wire_model
from tests.fakes import FakeHost, colour_of

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 5}

NO_NULL = ("none is not an allowed value", "type_error.none.not_allowed")
PARAMETERS = (
    *("prompt", "negative_prompt", "styles", "seed", "subseed", "subseed_strength", "seed_resize_from_h"),
    *("seed_resize_from_w", "sampler_name", "scheduler", "batch_size", "n_iter", "steps", "cfg_scale", "width"),
    *("height", "restore_faces", "tiling", "do_not_save_samples", "do_not_save_grid", "eta", "denoising_strength"),
    *("s_min_uncond", "s_churn", "s_tmax", "s_tmin", "s_noise", "override_settings"),
    *("override_settings_restore_afterwards", "refiner_checkpoint", "refiner_switch_at", "disable_extra_networks"),
    *("firstpass_image", "comments", "enable_hr", "firstphase_width", "firstphase_height", "hr_scale", "hr_upscaler"),
    *("hr_second_pass_steps", "hr_resize_x", "hr_resize_y", "hr_checkpoint_name", "hr_sampler_name", "hr_scheduler"),
    *("hr_prompt", "hr_negative_prompt", "force_task_id", "sampler_index", "script_name", "script_args"),
    *("send_images", "save_images", "alwayson_scripts", "infotext"),
)
INFO = (
    *("prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds", "subseed"),
    *("all_subseeds", "subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps", "batch_size"),
    *("restore_faces", "face_restoration_model", "sd_model_name", "sd_model_hash", "sd_vae_name", "sd_vae_hash"),
    *("seed_resize_from_w", "seed_resize_from_h", "denoising_strength", "extra_generation_params"),
    *("index_of_first_image", "infotexts", "styles", "job_timestamp", "clip_skip"),
    *("is_using_inpainting_conditioning", "version"),
)


def last_request(api: Api) -> GenerationRequest:
    return [message.request for message in api.host.sent if isinstance(message, Generate)][-1]


def pictures(response: httpx.Response) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(text, validate=True))) for text in response.json()["images"]]


def info(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.json()["info"])
    return found


async def until(api: Api, job_count: int) -> None:
    """Wait until this many requests are waiting."""
    async with asyncio.timeout(5):
        while len(api.app.state.sdapi.tasks.active(api.user.caller.user_id)) < job_count:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_an_empty_request_runs_euler_for_50_steps_at_512(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img()
        wanted = last_request(api)
    assert response.status_code == 200
    assert 0 <= wanted.seed <= 4294967293
    assert wanted == GenerationRequest(
        prompt="",
        model="test-model",
        prompt_syntax=PromptSyntax.A1111,
        width=512,
        height=512,
        steps=50,
        guidance_scale=7.0,
        sampler="Euler",
        schedule="Automatic",
        seed=wanted.seed,
        noise_source=NoiseSource.GPU,
        image_count=1,
        vae="None",
    )


async def test_the_answer_echoes_every_field_in_order_with_nulls_and_the_unresolved_seed(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(**SMALL, cfg_scale=5, prompt="a", unknown="ignored")
    parameters = response.json()["parameters"]
    assert list(response.json()) == ["images", "parameters", "info"]
    assert tuple(parameters) == PARAMETERS
    assert json.dumps(
        {name: parameters[name] for name in ("seed", "styles", "cfg_scale", "subseed_strength", "hr_scale")}
    ) == ('{"seed": -1, "styles": null, "cfg_scale": 5.0, "subseed_strength": 0, "hr_scale": 2.0}')


async def test_info_is_a_text_of_json_with_every_key_in_order(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(**SMALL, prompt="a", negative_prompt="b", seed=7, batch_size=2, n_iter=2)
    found = info(response)
    assert isinstance(response.json()["info"], str)
    assert tuple(found) == INFO
    assert found["all_seeds"] == [7, 8, 9, 10]
    assert (found["all_prompts"], found["all_negative_prompts"]) == (["a"] * 4, ["b"] * 4)
    assert (found["batch_size"], found["steps"], found["cfg_scale"]) == (2, 5, 7.0)
    assert (found["sampler_name"], found["sd_model_name"]) == ("Euler", "test-model")
    assert found["extra_generation_params"] == {"Schedule type": "Automatic"}
    assert (found["index_of_first_image"], len(found["infotexts"])) == (0, 4)
    assert len(found["job_timestamp"]) == 14


async def test_pictures_carry_their_infotext_and_picture_i_has_seed_plus_i(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(**SMALL, prompt="a cat", seed=7, n_iter=3)
    images = pictures(response)
    assert [image.getpixel((0, 0)) for image in images] == [tuple(colour_of(seed)) for seed in (7, 8, 9)]
    assert [image.info["parameters"] for image in images] == info(response)["infotexts"]
    assert [parse(image.info["parameters"])["Seed"] for image in images] == ["7", "8", "9"]
    assert images[0].size == (64, 64)


async def test_the_engine_gets_the_samplers_knobs(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        await api.txt2img(**SMALL, sampler_name="Euler a", eta=0.5, s_churn=1, s_tmin=2, s_tmax=3, s_noise=1.1)
        given = last_request(api)
        await api.txt2img(**SMALL, s_churn=None, s_tmax=0, s_noise=None, eta=None)
        default = last_request(api)
    assert given.sampler_options == SamplerOptions(
        eta=0.5, churn=1.0, churn_min_sigma=2.0, churn_max_sigma=3.0, noise_scale=1.1
    )
    assert default.sampler_options == SamplerOptions()


@pytest.mark.parametrize(
    ("body", "sampler", "schedule"),
    [
        ({"sampler_name": "DPM++ 2M"}, "DPM++ 2M", "Automatic"),
        ({"sampler_name": "DPM++ 2M Karras"}, "DPM++ 2M", "Karras"),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "automatic"}, "DPM++ 2M", "Automatic"),
        ({"sampler_name": "k_euler_a", "scheduler": "SGMUniform"}, "Euler a", "SGM Uniform"),
        ({"sampler_name": "heun", "scheduler": "exponential"}, "Heun", "Exponential"),
        ({"sampler_index": "DDIM"}, "DDIM", "Automatic"),
        ({"sampler_name": "", "sampler_index": "DDIM"}, "DDIM", "Automatic"),
        ({"sampler_name": "Heun", "sampler_index": "DDIM", "scheduler": ""}, "Heun", "Automatic"),
    ],
)
async def test_samplers_and_schedules_are_found_by_every_name_clients_use(
    tmp_path: Path, body: dict[str, Any], sampler: str, schedule: str
) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(**SMALL, **body)
        assert (last_request(api).sampler, last_request(api).schedule) == (sampler, schedule)
        assert info(response)["sampler_name"] == sampler


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"sampler_name": "Eular"}, "Sampler not found"),
        ({"sampler_index": "string"}, "Sampler not found"),
        ({"scheduler": "string"}, "Scheduler not found"),
    ],
)
async def test_an_unknown_sampler_or_schedule_is_refused(tmp_path: Path, body: dict[str, Any], detail: str) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(**body)
        assert (response.status_code, response.json()["detail"]) == (400, detail)
        assert response.json()["error"] == "HTTPException"
        assert "One of:" in response.json()["errors"]
        assert await api.balance() == 100


async def test_sizes_are_cut_to_multiples_of_8_and_info_echoes_the_request(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(width=71, height=79, steps=5)
    assert pictures(response)[0].size == (64, 72)
    assert (info(response)["width"], info(response)["height"]) == (71, 79)


async def test_null_means_the_default(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.post(
            TXT2IMG,
            json=dict.fromkeys(("seed", "steps", "width", "cfg_scale", "batch_size", "n_iter", "prompt")),
            headers=api.user.basic,
        )
        assert response.status_code == 200
        assert (last_request(api).steps, last_request(api).width, last_request(api).image_count) == (50, 512, 1)


async def test_send_images_false_sends_none_but_keeps_them(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(**SMALL, send_images=False)
        assert response.json()["images"] == []
        assert len(info(response)["infotexts"]) == 1
        assert (await api.get("/v1/image/outputs")).json()["total"] == 1


async def test_save_images_with_several_pictures_puts_a_grid_first(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(**SMALL, seed=1, batch_size=3, save_images=True)
    grid, *images = pictures(response)
    assert len(images) == 3
    assert (info(response)["index_of_first_image"], len(info(response)["infotexts"])) == (1, 4)
    assert grid.size == (128, 128)
    assert [grid.getpixel(place) for place in ((0, 0), (64, 0), (0, 64), (64, 64))] == [
        *(tuple(colour_of(seed)) for seed in (1, 2, 3)),
        (255, 255, 255),
    ]
    assert grid.info["parameters"] == info(response)["infotexts"][0]


async def test_one_picture_has_no_grid(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(**SMALL, save_images=True)
    assert (len(pictures(response)), info(response)["index_of_first_image"]) == (1, 0)


async def test_a_task_id_always_comes_back_in_a_header(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        own = await api.txt2img(**SMALL, force_task_id="task(mine-1)")
        made = await api.txt2img(**SMALL)
        hostile = await api.txt2img(**SMALL, force_task_id="a\r\nSet-Cookie: b=é")
    assert own.headers["x-task-id"] == "task(mine-1)"
    assert made.headers["x-task-id"].startswith("task(txt2img-")
    assert "set-cookie" not in hostile.headers
    assert hostile.headers["x-task-id"] == "a%0D%0ASet-Cookie: b=%C3%A9"


NOT_OF_THE_SCHEMA = [
    ('{"steps":"x"}', ["body", "steps"], "value is not a valid integer", "type_error.integer"),
    ('{"cfg_scale":"x"}', ["body", "cfg_scale"], "value is not a valid float", "type_error.float"),
    ('{"prompt":["a"]}', ["body", "prompt"], "str type expected", "type_error.str"),
    ('{"tiling":"perhaps"}', ["body", "tiling"], "value could not be parsed to a boolean", "type_error.bool"),
    ('{"styles":"a"}', ["body", "styles"], "value is not a valid list", "type_error.list"),
    ('{"styles":["a",null]}', ["body", "styles", 1], *NO_NULL),
    ('{"override_settings":3}', ["body", "override_settings"], "value is not a valid dict", "type_error.dict"),
    (
        '{"sampler_index":null}',
        ["body", "sampler_index"],
        "none is not an allowed value",
        "type_error.none.not_allowed",
    ),
    (
        '{"script_args":null}',
        ["body", "script_args"],
        "none is not an allowed value",
        "type_error.none.not_allowed",
    ),
    ("[]", ["body"], "value is not a valid dict", "type_error.dict"),
    ("", ["body"], "field required", "value_error.missing"),
    ("null", ["body"], "field required", "value_error.missing"),
    ('{"a":', ["body", 5], "Expecting value", "value_error.jsondecode"),
    ('{"cfg_scale":NaN}', ["body", 0], "NaN is not JSON", "value_error.jsondecode"),
    ('{"cfg_scale":1e999}', ["body", 0], "1e999 is out of range", "value_error.jsondecode"),
]


async def test_what_does_not_fit_the_schema_is_a_422_in_pydantic_v1s_words(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for body, place, message, kind in NOT_OF_THE_SCHEMA:
            response = await api.client.post(TXT2IMG, content=body, headers=api.user.basic)
            assert response.status_code == 422, body
            assert response.json() == {"detail": [{"loc": place, "msg": message, "type": kind}]}
            assert await api.balance() == 100


async def test_all_fields_at_fault_are_told(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(steps="x", width="y")
        assert [error["loc"][1] for error in response.json()["detail"]] == ["steps", "width"]


@pytest.mark.parametrize("body", [b"\xff", b"[" * 100_000, b'{"a":' + b"1" * 5000 + b"}"])
async def test_a_body_no_reader_takes_is_a_422(tmp_path: Path, body: bytes) -> None:
    async with run_api(tmp_path) as api:
        assert (await api.client.post(TXT2IMG, content=body, headers=api.user.basic)).status_code == 422


OUT_OF_RANGE = [
    ({"steps": 0}, "steps must be between 1 and 150, not 0."),
    ({"steps": 151}, "steps must be between 1 and 150, not 151."),
    ({"width": 63}, "width must be between 64 and 2048, not 56."),
    ({"height": 4096}, "height must be between 64 and 2048, not 4096."),
    ({"width": -8}, "width must be between 64 and 2048, not -8."),
    ({"cfg_scale": -1}, "cfg_scale must be between 0.0 and 100.0, not -1.0."),
    ({"s_churn": -1}, "s_churn must be between 0 and 1000, not -1.0."),
    ({"batch_size": 0}, "batch_size must be between 1 and 64, not 0."),
    ({"n_iter": 65}, "n_iter must be between 1 and 64, not 65."),
    ({"batch_size": 9, "n_iter": 8}, "batch_size * n_iter must be at most 64, not 72."),
    ({"eta": -1}, "eta must be between 0 and 1000, not -1.0."),
    ({"prompt": "x" * 20_001}, "prompt is longer than 20000 characters."),
]


async def test_what_no_engine_does_is_refused_and_costs_nothing(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for body, detail in OUT_OF_RANGE:
            response = await api.txt2img(**body)
            assert response.status_code == 400, body
            assert response.json() == {"error": "HTTPException", "detail": detail, "body": "", "errors": ""}
            assert await api.balance() == 100


@pytest.mark.parametrize("seed", [-2, 2**63, 10**30])
async def test_a_seed_beyond_every_engine_is_refused(tmp_path: Path, seed: int) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(seed=seed)
        assert (response.status_code, response.json()["detail"][:21]) == (400, "seed must be between ")


async def test_too_few_credits_and_a_full_queue_have_their_status(tmp_path: Path) -> None:
    async with run_api(tmp_path, credit=1) as api:
        response = await api.txt2img(**SMALL, batch_size=2)
        assert (response.status_code, response.json()["detail"]) == (402, "insufficient_credits")
        assert await api.balance() == 1


async def test_a_failed_job_is_a_500_of_its_kind_and_is_refunded(tmp_path: Path) -> None:
    host = FakeHost(automatic=False)
    async with run_api(tmp_path, host=host) as api:
        answer = asyncio.create_task(api.txt2img(**SMALL))
        host.fail(await host.next(Generate), "out_of_memory", "The device has too little memory.")
        response = await answer
        assert response.status_code == 500
        assert response.json() == {
            "error": "OutOfMemory",
            "detail": "",
            "body": "",
            "errors": "The device has too little memory.",
        }
        assert await api.balance() == 100


async def test_a_prompt_the_engine_cannot_read_is_the_callers_mistake(tmp_path: Path) -> None:
    host = FakeHost(automatic=False)
    async with run_api(tmp_path, host=host) as api:
        answer = asyncio.create_task(api.txt2img(**SMALL, prompt="<lora:x>"))
        host.fail(await host.next(Generate), "invalid_prompt", "LoRA is not supported.")
        response = await answer
        assert (response.status_code, response.json()["detail"]) == (400, "LoRA is not supported.")


async def test_interrupting_answers_with_the_pictures_as_far_as_they_are(tmp_path: Path) -> None:
    host = FakeHost(automatic=False)
    async with run_api(tmp_path, host=host) as api:
        answer = asyncio.create_task(api.txt2img(**SMALL, batch_size=3))
        generate = await host.next(Generate)
        host.emit(Started(job_id=generate.job_id))
        interrupted = await api.client.post("/sdapi/v1/interrupt", headers=api.user.basic)
        assert (await host.next(Cancel)).keep_partial
        host.image(generate, 0, is_partial=True)
        host.emit(Finished(job_id=generate.job_id))
        response = await answer
        assert (interrupted.status_code, interrupted.text) == (200, "{}")
        assert (response.status_code, len(response.json()["images"])) == (200, 1)
        assert await api.balance() == 99


async def test_interrupting_a_waiting_request_answers_without_pictures_and_refunds(tmp_path: Path) -> None:
    async with run_api(tmp_path, host=FakeHost(says_ready=False)) as api:
        answer = asyncio.create_task(api.txt2img(**SMALL, batch_size=2))
        await until(api, 1)
        skipped = await api.client.post("/sdapi/v1/skip", headers=api.user.basic)
        response = await answer
        assert (skipped.status_code, skipped.text) == (200, "null")
        assert (response.status_code, response.json()["images"]) == (200, [])
        assert len(info(response)["infotexts"]) == 1
        assert await api.balance() == 100


async def test_nobody_interrupts_the_work_of_others(tmp_path: Path) -> None:
    host = FakeHost(automatic=False)
    async with run_api(tmp_path, host=host) as api:
        answer = asyncio.create_task(api.txt2img(**SMALL))
        generate = await host.next(Generate)
        stranger = replace(api, user=await make_user(api.services, name="bob"))
        await stranger.client.post("/sdapi/v1/interrupt", headers=stranger.user.basic)
        host.emit(Started(job_id=generate.job_id))
        host.finish(generate)
        assert len((await answer).json()["images"]) == 1
        assert not [message for message in host.sent if isinstance(message, Cancel)]


async def test_interrupting_leaves_jobs_of_the_other_wire_alone(tmp_path: Path) -> None:
    host = FakeHost(automatic=False)
    async with run_api(tmp_path, host=host) as api:
        answer = asyncio.create_task(api.create(num_outputs=1))
        generate = await host.next(Generate)
        await api.client.post("/sdapi/v1/interrupt", headers=api.user.basic)
        host.emit(Started(job_id=generate.job_id))
        host.finish(generate)
        assert (await answer).status_code == 200


async def test_a_client_that_leaves_has_its_job_canceled_and_refunded(tmp_path: Path) -> None:
    host = FakeHost(automatic=False)
    async with run_api(tmp_path, host=host) as api:
        gone = asyncio.Event()
        body = json.dumps({**SMALL, "batch_size": 2}).encode()
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(_message: Any) -> None: ...

        headers = [(name.lower().encode(), value.encode()) for name, value in api.user.basic.items()]
        scope = {
            "type": "http",
            "method": "POST",
            "path": TXT2IMG,
            "raw_path": TXT2IMG.encode(),
            "query_string": b"",
            "headers": headers,
            "http_version": "1.1",
            "scheme": "http",
            "server": ("localhost", 8000),
            "client": ("127.0.0.1", 1),
        }
        call = asyncio.create_task(api.app(scope, receive, send))
        generate = await host.next(Generate)
        gone.set()
        await call
        await host.next(Cancel)
        host.emit(Canceled(job_id=generate.job_id))
        async with api.services.db.read() as session:
            job = await get_job(session, UUID(generate.job_id))
        assert job.status is JobStatus.CANCELED
        assert await api.balance() == 100


class TestOverrides:
    async def test_a_request_may_name_its_model(self, tmp_path: Path) -> None:
        other = wire_model("other", title="other.safetensors [0123456789]")
        async with run_api(tmp_path, models=[wire_model(), other]) as api:
            response = await api.txt2img(**SMALL, override_settings={"sd_model_checkpoint": "other.safetensors"})
            assert last_request(api).model == "other"
            assert info(response)["sd_model_name"] == "other"
            assert (await api.get("/sdapi/v1/options")).json()["sd_model_checkpoint"] == "test-model"

    async def test_a_model_that_is_not_there_is_refused_and_costs_nothing(self, tmp_path: Path) -> None:
        async with run_api(tmp_path) as api:
            response = await api.txt2img(**SMALL, override_settings={"sd_model_checkpoint": "missing"})
            assert (response.status_code, response.json()["detail"]) == (400, "There is no model named 'missing'.")
            assert await api.balance() == 100

    async def test_the_model_stays_when_it_is_not_to_be_restored(self, tmp_path: Path) -> None:
        async with run_api(tmp_path, models=[wire_model(), wire_model("other")]) as api:
            await api.txt2img(
                **SMALL,
                override_settings={"sd_model_checkpoint": "other"},
                override_settings_restore_afterwards=False,
            )
            assert (await api.get("/sdapi/v1/options")).json()["sd_model_checkpoint"] == "other"

    @pytest.mark.parametrize(
        ("name", "source"), [("CPU", NoiseSource.CPU), ("NV", NoiseSource.NV), ("GPU", NoiseSource.GPU)]
    )
    async def test_a_request_may_name_its_noise(self, tmp_path: Path, name: str, source: NoiseSource) -> None:
        async with run_api(tmp_path) as api:
            await api.txt2img(**SMALL, override_settings={"randn_source": name})
            assert last_request(api).noise_source is source

    @pytest.mark.parametrize("overrides", [{"samples_format": "jpg"}, {"randn_source": "dice"}])
    async def test_formats_and_noise_of_other_kinds_are_refused(
        self, tmp_path: Path, overrides: dict[str, str]
    ) -> None:
        async with run_api(tmp_path) as api:
            assert (await api.txt2img(**SMALL, override_settings=overrides)).status_code == 400

    async def test_options_without_effect_are_named_in_a_header(self, tmp_path: Path) -> None:
        overrides = {
            "samples_format": "png",
            "sd_vae": "Automatic",
            "CLIP_stop_at_last_layers": 1,
            "filter_nsfw": False,
            "send_seed": False,
            "forge_additional_modules": None,
            "a\r\nb": 1,
        }
        async with run_api(tmp_path) as api:
            response = await api.txt2img(**SMALL, override_settings=overrides)
            plain = await api.txt2img(**SMALL)
        assert response.headers["x-sfumato-ignored"] == "filter_nsfw, send_seed, a%0D%0Ab"
        assert "x-sfumato-ignored" not in plain.headers


class TestSampling:
    async def test_a_variation_shares_the_seed_and_counts_the_subseed(self, tmp_path: Path) -> None:
        async with run_api(tmp_path) as api:
            response = await api.txt2img(**SMALL, seed=7, subseed=30, subseed_strength=0.5, batch_size=3)
            wanted = last_request(api)
        found = info(response)
        assert wanted.variation == Variation(subseed=30, strength=0.5)
        assert (found["all_seeds"], found["all_subseeds"]) == ([7, 7, 7], [30, 31, 32])
        assert (found["subseed"], found["subseed_strength"]) == (30, 0.5)
        assert [parse(text)["Variation seed"] for text in found["infotexts"]] == ["30", "31", "32"]

    async def test_a_variation_without_a_subseed_gets_one(self, tmp_path: Path) -> None:
        async with run_api(tmp_path) as api:
            response = await api.txt2img(**SMALL, seed=7, subseed_strength=0.5)
            wanted = last_request(api)
        assert wanted.variation is not None
        assert info(response)["subseed"] == wanted.variation.subseed

    async def test_a_seed_may_come_from_another_size(self, tmp_path: Path) -> None:
        async with run_api(tmp_path) as api:
            await api.txt2img(**SMALL, seed_resize_from_h=96, seed_resize_from_w=64)
            assert last_request(api).seed_resize == SeedResize(width=64, height=96)

    async def test_a_request_may_name_every_option_of_sampling(self, tmp_path: Path) -> None:
        overrides = {
            "eta_noise_seed_delta": 31337, "sigma_min": 0.1, "sigma_max": 9, "rho": 5, "beta_dist_alpha": 0.5,
            "beta_dist_beta": 0.7, "always_discard_next_to_last_sigma": True, "sgm_noise_multiplier": True,
            "s_min_uncond": 2, "s_min_uncond_all": True, "skip_early_cond": 0.1, "eta_ancestral": 0.5,
            "uni_pc_variant": "bh2", "uni_pc_skip_type": "logSNR", "uni_pc_order": 2.0,
            "uni_pc_lower_order_final": False,
        }  # fmt: skip
        async with run_api(tmp_path) as api:
            response = await api.txt2img(**SMALL, sampler_name="Euler a", override_settings=overrides)
            wanted = last_request(api)
        assert "x-sfumato-ignored" not in response.headers
        assert wanted.eta_seed_delta == 31337
        assert wanted.schedule_options == ScheduleOptions(
            min_sigma=0.1, max_sigma=9, rho=5, beta_alpha=0.5, beta_beta=0.7, discards_penultimate=True
        )
        assert wanted.guidance_skips == GuidanceSkips(below_sigma=2, at_every_evaluation=True, until_fraction=0.1)
        assert (wanted.sampler_options.eta, wanted.sampler_options.starts_at_unit_variance) == (0.5, True)
        assert wanted.sampler_options.unipc == UniPCOptions(
            variant=UniPCVariant.BH2, spacing=UniPCSpacing.LOG_SNR, order=2, lowers_order_at_end=False
        )

    async def test_fields_beat_options_but_for_churn(self, tmp_path: Path) -> None:
        overrides = {"s_churn": 3, "eta_ancestral": 0.5, "s_min_uncond": 2}
        async with run_api(tmp_path) as api:
            await api.txt2img(**SMALL, s_churn=1, eta=0.7, s_min_uncond=4, override_settings=overrides)
            wanted = last_request(api)
        assert (wanted.sampler_options.churn, wanted.sampler_options.eta) == (3, 0.7)
        assert wanted.guidance_skips.below_sigma == 4

    async def test_an_option_that_is_no_number_is_refused(self, tmp_path: Path) -> None:
        async with run_api(tmp_path) as api:
            response = await api.txt2img(**SMALL, override_settings={"sigma_min": "low"})
        assert response.status_code == 400
        assert response.json()["detail"].startswith("sigma_min")

    async def test_unknown_samplers_are_the_first_of_the_list_where_the_installation_says_so(
        self, tmp_path: Path
    ) -> None:
        async with run_api(tmp_path, sdapi_takes_unknown_samplers=True) as api:
            await api.txt2img(**SMALL, sampler_name="Eulr", scheduler="karas")
            wanted = last_request(api)
        assert (wanted.sampler, wanted.schedule) == ("DPM++ 2M", "Automatic")
