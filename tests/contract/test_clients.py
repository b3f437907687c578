"""What other clients send as they start and generate (section 8 of the contract), replayed against a live server."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.contract.live import LiveServer, live_server

SIZE = {"width": 64, "height": 64}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("clients")) as running:
        yield running


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, auth=("user", server.key)) as session:
        yield session


def is_png(text: str) -> bool:
    return base64.b64decode(text, validate=True).startswith(b"\x89PNG")


def test_open_webui(server: LiveServer) -> None:
    secret = base64.b64encode(f"user:{server.key}".encode()).decode()
    with httpx.Client(base_url=server.url, headers={"authorization": f"Basic {secret}"}) as client:
        options = client.get("/sdapi/v1/options").json()
        titles = [model["title"] for model in client.get("/sdapi/v1/sd-models").json()]
        assert options["sd_model_checkpoint"] in titles
        changed = client.post("/sdapi/v1/options", json={**options, "sd_model_checkpoint": titles[0]})
        assert changed.status_code == 200
        body = {"prompt": "a", "batch_size": 1, **SIZE, "steps": 5, "negative_prompt": "b", "sampler_name": "Euler a"}
        answer = client.post("/sdapi/v1/txt2img", json=body).json()
        assert is_png(answer["images"][0])


def test_open_webui_without_a_key_on_a_server_open_to_this_machine(tmp_path: Path) -> None:
    with live_server(tmp_path, sdapi_open_on_loopback=True) as server:
        for header in ("", "Basic", "Basic Og=="):
            with httpx.Client(base_url=server.url, headers={"authorization": header}) as client:
                assert client.get("/sdapi/v1/options").status_code == 200
        answer = httpx.post(f"{server.url}/sdapi/v1/txt2img", json={"prompt": "a", **SIZE, "steps": 5})
        assert answer.status_code == 200


def test_sillytavern(client: httpx.Client) -> None:
    for path in ("options", "samplers", "schedulers", "sd-models", "upscalers", "latent-upscale-modes", "sd-vae"):
        assert client.get(f"/sdapi/v1/{path}").status_code == 200, path
    current = client.get("/sdapi/v1/options").json()["sd_model_checkpoint"]
    client.post("/sdapi/v1/options", json={"sd_model_checkpoint": current})
    progress = client.get("/sdapi/v1/progress").json()
    assert (progress["progress"], progress["state"]["job_count"]) == (0.0, 0)
    body = {
        "url": "http://127.0.0.1:7860",
        "auth": "user:password",
        "prompt": "a knight",
        "negative_prompt": "lowres",
        "sampler_name": "Euler a",
        "scheduler": "Karras",
        "steps": 20,
        "cfg_scale": 7,
        **SIZE,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "Latent",
        "hr_scale": 2,
        "hr_additional_modules": [],
        "denoising_strength": 0.7,
        "hr_second_pass_steps": 0,
        "override_settings": {
            "CLIP_stop_at_last_layers": 1,
            "sd_vae": "Automatic",
            "forge_additional_modules": [],
        },
        "override_settings_restore_afterwards": True,
        "clip_skip": 1,
        "save_images": True,
        "send_images": True,
        "do_not_save_grid": False,
        "do_not_save_samples": False,
    }
    answer = client.post("/sdapi/v1/txt2img", json=body).json()
    assert len(answer["images"]) == 1
    assert is_png(answer["images"][0])
    assert client.post("/sdapi/v1/interrupt").status_code == 200


def test_swarmui(client: httpx.Client) -> None:
    assert "sd_model_checkpoint" in client.get("/sdapi/v1/options").json()
    assert client.get("/sdapi/v1/samplers").json()[0]["name"]
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "sfumato-builtin"}).status_code == 200
    body = {"prompt": "a", "negative_prompt": "", "seed": 3, "steps": 5, **SIZE, "batch_size": 1, "cfg_scale": 7}
    answer = client.post(
        "/sdapi/v1/txt2img", json={**body, "subseed": -1, "subseed_strength": 0, "sampler_name": "Euler"}
    ).json()
    assert json.loads(answer["info"])["seed"] == 3


def test_a_monitor(server: LiveServer) -> None:
    assert httpx.get(f"{server.url}/internal/ping").json() == {}
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}


def test_a_plain_client_of_the_stablecog_api(server: LiveServer) -> None:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.key}"}) as client:
        answer = client.post("/v1/image/generation/create", json={"prompt": "a", "num_outputs": 1}).json()
        picture = httpx.get(answer["outputs"][0]["url"])
        assert picture.content.startswith(b"\x89PNG")
        assert answer["outputs"][0]["url"].startswith(server.url)
        listed = client.get("/v1/image/generation/outputs").json()
        assert answer["outputs"][0]["id"] in [output["id"] for output in listed["outputs"]]
        assert client.get("/v1/credits").json()["total_remaining_credits"] <= answer["remaining_credits"]
