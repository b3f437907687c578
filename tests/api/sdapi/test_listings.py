"""What clients ask before they generate."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.api.sdapi.later import GETS, POSTS
from sfumato.api.sdapi.listings import CONSTANT
from sfumato.core.messages import Generate
from sfumato.core.models import VaeInfo
from tests.api.harness import make_user, run_api, wire_model
from tests.factories import make_settings
from tests.models.model_files import write_sd1_file

OPTIONS = "/sdapi/v1/options"
UPSTREAM_SAMPLERS = [
    "DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler",
    "LMS", "Heun", "DPM2", "DPM2 a", "DPM fast", "DPM adaptive", "Restart", "DDIM", "DDIM CFG++", "PLMS", "UniPC",
    "LCM",
]  # fmt: skip
UPSTREAM_SCHEDULES = [
    "Automatic", "Uniform", "Karras", "Exponential", "Polyexponential", "SGM Uniform", "KL Optimal",
    "Align Your Steps", "Simple", "Normal", "DDIM", "Beta", "Turbo",
]  # fmt: skip


async def test_options_name_the_checkpoint_and_every_key_clients_read(tmp_path: Path) -> None:
    model = wire_model(title="m.safetensors [0123456789]", sha256="0123456789" + "0" * 54)
    async with run_api(tmp_path, models=[model]) as api:
        options = (await api.get(OPTIONS)).json()
    assert options["sd_model_checkpoint"] == "m.safetensors [0123456789]"
    assert options["sd_checkpoint_hash"] == model.sha256
    assert options["CLIP_stop_at_last_layers"] == 1.0
    assert options["samples_format"] == "png"
    for name in ("sd_vae", "face_restoration_model", "upscaler_for_img2img", "img2img_fix_steps", "send_seed"):
        assert name in options


async def test_every_value_that_get_shows_is_accepted_by_post(tmp_path: Path) -> None:
    async with run_api(tmp_path, models=[wire_model(), wire_model("other")]) as api:
        options = (await api.get(OPTIONS)).json()
        response = await api.client.post(
            OPTIONS, json={**options, "sd_model_checkpoint": "other"}, headers=api.user.basic
        )
        after = (await api.get(OPTIONS)).json()
    assert (response.status_code, response.text) == (200, "null")
    assert "x-sfumato-ignored" not in response.headers
    assert after == {**options, "sd_model_checkpoint": "other"}


async def test_a_chosen_checkpoint_is_used_and_is_nobody_elses(tmp_path: Path) -> None:
    async with run_api(tmp_path, models=[wire_model(), wire_model("other")]) as api:
        stranger = replace(api, user=await make_user(api.services, name="bob"))
        await api.client.post(OPTIONS, json={"sd_model_checkpoint": "other"}, headers=api.user.basic)
        mine = await api.txt2img(width=64, height=64)
        assert '\\"sd_model_name\\": \\"other\\"' in mine.text
        assert (await stranger.get(OPTIONS)).json()["sd_model_checkpoint"] == "test-model"


async def test_an_unknown_checkpoint_is_refused(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.post(OPTIONS, json={"sd_model_checkpoint": "x"}, headers=api.user.basic)
    assert (response.status_code, response.json()["detail"]) == (400, "There is no model named 'x'.")


async def test_options_that_cannot_change_are_named(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.post(
            OPTIONS, json={"send_seed": False, "samples_format": "png", "fancy": 1}, headers=api.user.basic
        )
    assert (response.status_code, response.text) == (200, "null")
    assert response.headers["x-sfumato-ignored"] == "send_seed, fancy"


@pytest.mark.parametrize("body", ["[]", "", "null", "3"])
async def test_options_that_are_no_object_are_a_422(tmp_path: Path, body: str) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.post(OPTIONS, content=body, headers=api.user.basic)
    assert response.status_code == 422


async def test_models_are_listed_without_telling_where_they_lie(tmp_path: Path) -> None:
    model = wire_model(
        title="m.safetensors [0123456789]", sha256="0123456789" * 6 + "0000", location="/secret/m.safetensors"
    )
    async with run_api(tmp_path, models=[model]) as api:
        response = await api.get("/sdapi/v1/sd-models")
    assert response.json() == [
        {
            "title": "m.safetensors [0123456789]",
            "model_name": "test-model",
            "hash": "0123456789",
            "sha256": model.sha256,
            "filename": "m.safetensors",
            "config": None,
        }
    ]


async def test_samplers_and_schedulers_are_upstreams_in_its_order(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        samplers = (await api.get("/sdapi/v1/samplers")).json()
        schedulers = (await api.get("/sdapi/v1/schedulers")).json()
    assert [item["name"] for item in samplers][:20] == UPSTREAM_SAMPLERS
    assert samplers[0] == {"name": "DPM++ 2M", "aliases": ["k_dpmpp_2m"], "options": {"scheduler": "karras"}}
    assert samplers[3]["options"] == {"scheduler": "exponential", "brownian_noise": "True", "solver_type": "heun"}
    assert [item["label"] for item in schedulers] == UPSTREAM_SCHEDULES
    assert schedulers[2] == {
        "name": "karras",
        "label": "Karras",
        "aliases": None,
        "default_rho": 7.0,
        "need_inner_model": False,
    }
    assert schedulers[5]["aliases"] == ["SGMUniform"]


async def test_the_other_lists_have_their_shape(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for name, content in CONSTANT.items():
            assert (await api.get(f"/sdapi/v1/{name}")).json() == content
        upscalers = (await api.get("/sdapi/v1/upscalers")).json()
    assert [item["name"] for item in upscalers] == ["None", "Lanczos", "Nearest"]
    assert upscalers[0] == {"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4}
    assert CONSTANT["scripts"] == {"txt2img": [], "img2img": []}


async def test_memory_and_flags_tell_no_secret(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        memory = (await api.get("/sdapi/v1/memory")).json()
        flags = (await api.get("/sdapi/v1/cmd-flags")).json()
    assert memory["ram"]["free"] + memory["ram"]["used"] == memory["ram"]["total"]
    assert memory["cuda"] == {"error": "unavailable"}
    assert flags["api"] is True
    assert flags["api_auth"] is None
    assert str(tmp_path) not in str(flags)


async def test_each_route_of_a_later_version_is_told_apart_from_a_missing_one(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for method, paths in (("POST", POSTS), ("GET", GETS)):
            for path in paths:
                response = await api.client.request(method, path, headers=api.user.basic)
                assert response.status_code == 501, path
                assert response.json() == {
                    "error": "HTTPException",
                    "detail": f"{path} is not supported by this version of Sfumato.",
                    "body": "",
                    "errors": "",
                }


SOFT = VaeInfo(name="soft.safetensors", location="/nowhere/soft.safetensors", sha256="ab" * 32)


async def test_vaes_are_listed(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        api.services.registry.vaes = (SOFT,)
        response = await api.get("/sdapi/v1/sd-vae")
    assert response.json() == [{"model_name": "soft.safetensors", "filename": "soft.safetensors"}]


async def test_a_chosen_vae_is_used_and_told(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        api.services.registry.vaes = (SOFT,)
        response = await api.client.post(OPTIONS, json={"sd_vae": "SOFT"}, headers=api.user.basic)
        assert "x-sfumato-ignored" not in response.headers
        assert (await api.get(OPTIONS)).json()["sd_vae"] == "soft.safetensors"
        answer = await api.txt2img(width=64, height=64)
        (sent,) = [message for message in api.host.sent if isinstance(message, Generate)]
    assert sent.vae_location == SOFT.location
    info = json.loads(answer.json()["info"])
    assert (info["sd_vae_name"], info["sd_vae_hash"]) == ("soft.safetensors", "ab" * 5)
    assert "VAE hash: ababababab, VAE: soft.safetensors" in info["infotexts"][0]


async def test_a_vae_can_be_chosen_for_one_request(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        api.services.registry.vaes = (SOFT,)
        await api.txt2img(width=64, height=64, override_settings={"sd_vae": "soft"})
        await api.txt2img(width=64, height=64)
        sent = [message.vae_location for message in api.host.sent if isinstance(message, Generate)]
    assert sent == [SOFT.location, ""]


async def test_an_unknown_vae_is_refused(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.post(OPTIONS, json={"sd_vae": "x"}, headers=api.user.basic)
    assert (response.status_code, response.json()["detail"]) == (400, "There is no VAE named 'x'.")


@pytest.mark.parametrize("route", ["refresh-checkpoints", "refresh-vae"])
async def test_a_refresh_lists_new_models(route: str, tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        models = tmp_path / "models"
        write_sd1_file(models / "new.safetensors")
        api.services.registry.settings = make_settings(tmp_path, models_dir=models)
        response = await api.client.post(f"/sdapi/v1/{route}", headers=api.user.basic)
        listed = (await api.get("/sdapi/v1/sd-models")).json()
    assert (response.status_code, response.text) == (200, "null")
    assert "new" in [model["model_name"] for model in listed]
