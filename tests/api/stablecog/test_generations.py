"""`POST /v1/image/generation/create`: what is made, what is charged, and every way it is refused."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sfumato.api.stablecog.generations import PATHS
from sfumato.core.jobs import Dialect
from sfumato.core.messages import Finished, Generate, Started
from sfumato.core.requests import GenerationRequest, NoiseSource, PromptSyntax
from sfumato.storage import jobs
from tests.api.harness import CREATE, Api, run_api, wire_model
from tests.factories import make_request
from tests.fakes import FakeHost

EULER = "6fb13b76-9900-4fa4-abf8-8f843e034a7f"
DPM = "9d175114-9a26-4371-861c-729ba9ecb4da"


def last_request(api: Api) -> GenerationRequest:
    return [message.request for message in api.host.sent if isinstance(message, Generate)][-1]


async def post(api: Api, body: str | bytes, **headers: str) -> tuple[int, Any]:
    response = await api.client.post(CREATE, content=body, headers={**api.user.bearer, **headers})
    return response.status_code, response.json()


async def test_the_answer_has_the_hosted_services_fields_in_its_order(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.create(prompt="a red apple", num_outputs=1, seed=12345, guidance_scale=7.5)
        (output,) = response.json()["outputs"]
    url = f"http://localhost:8000/images/{output['id']}.png"
    model_id = wire_model().id
    assert response.text == (
        f'{{"outputs":[{{"id":"{output["id"]}","url":"{url}","image_url":"{url}"}}],"remaining_credits":99,'
        f'"settings":{{"model_id":"{model_id}","scheduler_id":"{EULER}","width":256,"height":256,"num_outputs":1,'
        f'"guidance_scale":7.5,"inference_steps":30,"seed":12345}}}}\n'
    )
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", PATHS)
async def test_both_names_answer_with_and_without_a_final_slash(tmp_path: Path, path: str) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.post(path, json={"num_outputs": 1}, headers=api.user.bearer)
        assert response.status_code == 200


@pytest.mark.parametrize("body", ["{}", "null", '{"width":null,"model_id":null}', '{"unknown":{"a":[1]}}'])
async def test_what_is_not_said_is_what_the_defaults_route_tells(tmp_path: Path, body: str) -> None:
    async with run_api(tmp_path) as api:
        status, answer = await post(api, body)
        defaults = (await api.client.get("/v1/image/generation/defaults")).json()
        seed = answer["settings"].pop("seed")
    del defaults["prompt_strength"]
    assert status == 200
    assert answer["settings"] == defaults
    assert len(answer["outputs"]) == defaults["num_outputs"] == 2
    assert 0 <= seed <= 2147483646


async def test_the_engine_gets_what_was_asked(tmp_path: Path) -> None:
    other = wire_model("other", default_width=512, default_height=768)
    async with run_api(tmp_path, models=[wire_model(), other]) as api:
        await api.create(
            prompt="  (a) [b]\n c ",
            negative_prompt="d",
            model_id=str(other.id),
            scheduler_id=DPM,
            inference_steps=11,
            guidance_scale=3,
            seed=5,
            num_outputs=3,
        )
        wanted = last_request(api)
    assert wanted == GenerationRequest(
        prompt="(a) [b] c",
        negative_prompt="d",
        prompt_syntax=PromptSyntax.PLAIN,
        model="other",
        width=512,
        height=768,
        steps=11,
        guidance_scale=3.0,
        sampler="DPM++ 2M",
        schedule="Uniform",
        seed=5,
        noise_source=NoiseSource.GPU,
        image_count=3,
        vae="None",
    )


async def test_picture_i_has_seed_plus_i(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        answer = (await api.create(num_outputs=4, seed=100)).json()
        async with api.services.db.read() as session:
            page = await jobs.list_outputs(session, api.user.caller.user_id, ascending=True)
    assert answer["settings"]["seed"] == 100
    assert [output.seed for output, _ in page.items] == [100, 101, 102, 103]
    assert [str(output.id) for output, _ in page.items] == [output["id"] for output in answer["outputs"]]


@pytest.mark.parametrize("scheduler_id", [str(uuid4()), "b7224e56-1440-43b9-ac86-66d66f9e8c91"])
async def test_an_unknown_scheduler_becomes_the_default_and_settings_show_it(tmp_path: Path, scheduler_id: str) -> None:
    async with run_api(tmp_path) as api:
        answer = (await api.create(scheduler_id=scheduler_id, num_outputs=1)).json()
    assert answer["settings"]["scheduler_id"] == EULER


async def test_prompts_are_cut_at_500_characters_not_bytes(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        await api.create(prompt="é" * 501, negative_prompt="x" * 10_000, num_outputs=1)
        wanted = last_request(api)
    assert (wanted.prompt, wanted.negative_prompt) == ("é" * 500, "x" * 500)


async def test_prompts_of_odd_characters_are_made_fit_for_storage(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        status, _ = await post(api, '{"prompt":"a\\ud800b\\u0000c 🍎","num_outputs":1}')
        assert status == 200
        assert last_request(api).prompt == "a\ufffdbc 🍎"
        assert (await api.get("/v1/image/outputs")).json()["outputs"][0]["generation"]["prompt"][
            "text"
        ] == "a\ufffdbc 🍎"


@pytest.mark.parametrize("body", ['{"WIDTH":264,"Num_Outputs":1}', '{"width":1,"Width":264,"num_outputs":1}'])
async def test_names_match_in_any_case_and_the_last_one_counts(tmp_path: Path, body: str) -> None:
    async with run_api(tmp_path) as api:
        status, answer = await post(api, body, **{"Content-Type": "text/plain"})
    assert (status, answer["settings"]["width"]) == (200, 264)


NOT_OF_THE_SHAPE = [
    "",
    "[]",
    '"text"',
    "1",
    "{",
    "{}{}",
    '{"width":"512"}',
    '{"width":512.0}',
    '{"width":5e2}',
    '{"width":true}',
    '{"width":2147483648}',
    '{"width":-2147483649}',
    '{"seed":9223372036854775808}',
    '{"seed":1.5}',
    '{"num_outputs":[1]}',
    '{"guidance_scale":"7"}',
    '{"guidance_scale":NaN}',
    '{"guidance_scale":Infinity}',
    '{"guidance_scale":1e999}',
    '{"guidance_scale":1e39}',
    '{"guidance_scale":true}',
    '{"prompt":1}',
    '{"prompt":["a"]}',
    '{"model_id":"x"}',
    '{"model_id":""}',
    '{"model_id":1}',
    '{"scheduler_id":"6fb13b76"}',
    '{"submit_to_gallery":"yes"}',
    '{"prompt_strength":"a"}',
    '{"init_image_url":1}',
]


async def test_a_body_of_another_shape_is_a_parse_error(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for body in NOT_OF_THE_SHAPE:
            assert await post(api, body) == (400, {"error": "json_parse_error"}), body
            assert await api.balance() == 100


LIMITS = [
    ({"height": 1025}, "Height is too large, max is: 1024"),
    ({"height": 255}, "Height is too small, min is: 256"),
    ({"height": 0}, "Height is too small, min is: 256"),
    ({"height": 257}, "Height must be a multiple of 8"),
    ({"width": 1025}, "Width is too large, max is: 1024"),
    ({"width": 255}, "Width is too small, min is: 256"),
    ({"width": 1020}, "Width must be a multiple of 8"),
    ({"guidance_scale": 0.5}, "Guidance scale is too small, min is: 1.000000"),
    ({"guidance_scale": 20.5}, "Guidance scale is too large, max is: 20.000000"),
    ({"inference_steps": 9}, "Inference steps is too small, min is: 10"),
    ({"inference_steps": 51}, "Inference steps is too large, max is: 50"),
    (
        {"width": 1024, "height": 1024, "inference_steps": 31},
        "Pick fewer inference steps or smaller dimensions: 1024 - 1024 - 31",
    ),
    ({"num_outputs": 5}, "Number of outputs can't be more than 4"),
    ({"num_outputs": 0}, "Number of outputs can't be less than 1"),
    ({"model_id": str(uuid4())}, "invalid_model_id"),
    ({"model_id": str(uuid4()), "width": 512, "height": 512}, "invalid_model_id"),
]


async def test_each_limit_has_its_text_and_costs_nothing(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for body, error in LIMITS:
            response = await api.create(**body)
            assert (response.status_code, response.json()) == (400, {"error": error})
            assert await api.balance() == 100
            assert not [message for message in api.host.sent if isinstance(message, Generate)]


SEVERAL_MISTAKES = [
    ({"height": 1, "width": 1, "guidance_scale": 99}, "Height is too small, min is: 256"),
    ({"width": 1, "guidance_scale": 99}, "Width is too small, min is: 256"),
    ({"guidance_scale": 99, "inference_steps": 1}, "Guidance scale is too large, max is: 20.000000"),
    ({"inference_steps": 1, "num_outputs": 9}, "Inference steps is too small, min is: 10"),
    ({"num_outputs": 9, "model_id": str(uuid4())}, "Number of outputs can't be more than 4"),
    ({"model_id": str(uuid4()), "init_image_url": "http://a"}, "invalid_model_id"),
]


async def test_the_first_mistake_in_the_hosted_services_order_is_told(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for body, error in SEVERAL_MISTAKES:
            assert (await api.create(**body)).json() == {"error": error}


@pytest.mark.parametrize("field", ["width", "height"])
async def test_the_limits_themselves_are_allowed(tmp_path: Path, field: str) -> None:
    async with run_api(tmp_path) as api:
        for body in (
            {field: 1024},
            {field: 256},
            {"guidance_scale": 1},
            {"guidance_scale": 20},
            {"inference_steps": 50},
        ):
            assert (await api.create(num_outputs=1, **body)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [{"init_image_url": "https://a.example/b.png"}, {"mask_image_url": "s3://a"}, {"submit_to_gallery": True}],
)
async def test_fields_of_later_versions_are_refused_and_cost_nothing(tmp_path: Path, body: dict[str, Any]) -> None:
    (name,) = body
    async with run_api(tmp_path) as api:
        response = await api.create(**body)
        assert response.status_code == 400
        assert response.json() == {
            "error": "not_supported",
            "description": f"{name} is not supported by this version of Sfumato.",
        }
        assert await api.balance() == 100


async def test_the_same_fields_without_a_wish_are_accepted(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.create(
            init_image_url="",
            mask_image_url=None,
            submit_to_gallery=False,
            prompt_strength=0.7,
            process_type="generate",
            output_image_extension="jpeg",
            num_outputs=1,
        )
        assert response.status_code == 200


async def test_a_seed_beyond_every_engine_is_refused(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.create(seed=2**63 - 1)
        assert response.status_code == 400
        assert response.json()["error"].startswith("seed must be between 0 and")
        assert await api.balance() == 100


async def test_a_negative_seed_and_a_negative_count_mean_not_given(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        answer = (await api.create(seed=-7, num_outputs=-1)).json()
    assert len(answer["outputs"]) == 2
    assert answer["settings"]["seed"] >= 0


async def test_too_few_credits_are_told_with_the_settings(tmp_path: Path) -> None:
    async with run_api(tmp_path, credit=3) as api:
        response = await api.create(num_outputs=4, seed=99)
        assert response.status_code == 400
        assert list(response.json()) == ["error", "settings"]
        assert response.json()["error"] == "insufficient_credits"
        assert response.json()["settings"]["seed"] == 99
        assert await api.balance() == 3


async def test_a_full_queue_is_told_with_the_settings(tmp_path: Path) -> None:
    async with run_api(tmp_path, host=FakeHost(says_ready=False), max_queued_jobs_per_user=1) as api:
        await api.services.service.submit(api.user.caller, make_request(), Dialect.STABLECOG)
        response = await api.create(num_outputs=1)
        assert response.status_code == 400
        assert (response.json()["error"], "settings" in response.json()) == ("queue_limit_reached", True)
        assert await api.balance() == 99


async def test_whoever_waits_when_the_server_stops_is_told_that_the_job_is_kept(tmp_path: Path) -> None:
    host = FakeHost(automatic=False)
    async with run_api(tmp_path, host=host) as api:
        answer = asyncio.create_task(api.create(num_outputs=1))
        await host.next(Generate)
        await api.services.service.stop()
        response = await answer
        assert (response.status_code, response.json()["error"]) == (503, "The server is stopping; the job is kept.")
        assert "settings" in response.json()


async def test_a_failed_generation_is_told_with_the_settings_and_refunded(tmp_path: Path) -> None:
    host = FakeHost(automatic=False)
    async with run_api(tmp_path, host=host) as api:
        answer = asyncio.create_task(api.create(num_outputs=2))
        host.fail(await host.next(Generate), message="100% of the memory is <gone>")
        response = await answer
        assert response.status_code == 500
        assert response.text.startswith('{"error":"100% of the memory is \\u003cgone\\u003e","settings":{')
        assert await api.balance() == 100


async def test_pictures_that_take_too_long_are_a_timeout_and_refunded(tmp_path: Path) -> None:
    async with run_api(tmp_path, host=FakeHost(automatic=False), generation_timeout_seconds=0.01) as api:
        response = await api.create(num_outputs=2)
        assert (response.status_code, response.json()["error"]) == (500, "TIMEOUT")
        assert "settings" in response.json()
        assert await api.balance() == 100


async def test_a_canceled_generation_says_so(tmp_path: Path) -> None:
    host = FakeHost(automatic=False)
    async with run_api(tmp_path, host=host) as api:
        answer = asyncio.create_task(api.create(num_outputs=2))
        await host.next(Generate)
        (progress,) = api.services.service.active()
        await api.services.service.cancel(progress.job_id)
        response = await answer
        assert response.json()["error"] == "The generation was canceled."
        assert await api.balance() == 100


async def test_pictures_that_did_not_come_are_refunded(tmp_path: Path) -> None:
    host = FakeHost(automatic=False)
    async with run_api(tmp_path, host=host) as api:
        answer = asyncio.create_task(api.create(num_outputs=4))
        generate = await host.next(Generate)
        host.emit(Started(job_id=generate.job_id))
        host.image(generate, 0)
        host.emit(Finished(job_id=generate.job_id))
        body = (await answer).json()
    assert (len(body["outputs"]), body["settings"]["num_outputs"], body["remaining_credits"]) == (1, 4, 99)


async def test_the_answer_is_json_a_strict_reader_takes(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.create(prompt="</script>&", num_outputs=1)
    assert json.loads(response.text) == response.json()
    assert "<" not in response.text
