"""The unmodified PyPI client `webuiapi` against a live server."""

from collections.abc import Iterator
from typing import Any

import pytest
import webuiapi
from PIL import Image

from tests.contract.live import LiveServer, live_server
from tests.fakes import colour_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("webuiapi")) as running:
        yield running


@pytest.fixture
def api(server: LiveServer) -> Iterator[Any]:
    client = webuiapi.WebUIApi(host="127.0.0.1", port=server.port, username="user", password=server.key)
    yield client
    client.session.close()


def test_txt2img_makes_pictures(api: Any) -> None:
    result = api.txt2img(
        prompt="a red apple", negative_prompt="ugly", seed=1003, batch_size=2, width=64, height=64, cfg_scale=7
    )
    assert [image.size for image in result.images] == [(64, 64)] * 2
    assert result.image.getpixel((0, 0)) == tuple(colour_of(1003))
    assert result.info["all_seeds"] == [1003, 1004]
    assert result.info["sampler_name"] == "Euler a"
    assert result.info["infotexts"][0].startswith("a red apple\nNegative prompt: ugly\nSteps: 20, Sampler: Euler a, ")
    assert result.parameters["prompt"] == "a red apple"
    assert result.image.info["parameters"] == result.info["infotexts"][0]


def test_txt2img_takes_old_sampler_names(api: Any) -> None:
    result = api.txt2img(prompt="x", sampler_name="DPM++ 2M Karras", scheduler="karras", width=64, height=64)
    assert result.info["extra_generation_params"] == {"Schedule type": "Karras"}


def test_what_is_not_supported_raises_with_a_clear_text(api: Any) -> None:
    for request in ({"restore_faces": True}, {"tiling": True}):
        with pytest.raises(RuntimeError, match="is not supported by this version"):
            api.txt2img(prompt="x", width=64, height=64, **request)
    with pytest.raises(RuntimeError, match=r"Prompt matrix.* not found"):
        api.txt2img(prompt="x", script_name="Prompt matrix")


def test_img2img_and_the_second_pass_work_unmodified(api: Any) -> None:
    red = Image.new("RGB", (64, 64), "red")
    painted = api.img2img(images=[red], prompt="x", mask_image=Image.new("L", (64, 64), 255), width=64, height=64)
    enlarged = api.txt2img(prompt="x", width=64, height=64, enable_hr=True, hr_scale=2, denoising_strength=0.5)
    assert painted.image.size == (64, 64)
    assert "Denoising strength" in enlarged.info["infotexts"][0]


def test_a_wrong_key_raises(server: LiveServer) -> None:
    client = webuiapi.WebUIApi(host="127.0.0.1", port=server.port, username="user", password="wrong")
    with pytest.raises(RuntimeError, match="401"):
        client.txt2img(prompt="x")
    client.session.close()


def test_extensions_that_are_not_there_are_not_claimed(api: Any) -> None:
    assert (api.has_controlnet, api.has_adetailer, api.has_animatediff) == (False, False, False)
    assert api.get_scripts() == {"txt2img": [], "img2img": []}


def test_lists_are_read(api: Any) -> None:
    assert api.util_get_model_names() == ["sfumato-builtin"]
    assert "Euler a" in api.util_get_sampler_names()
    assert "karras" in api.util_get_scheduler_names()
    assert [upscaler["name"] for upscaler in api.get_upscalers()] == ["None", "Lanczos", "Nearest"]
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    for read in (
        *(api.get_sd_vae, api.get_latent_upscale_modes, api.get_loras, api.get_hypernetworks),
        *(api.get_face_restorers, api.get_realesrgan_models, api.get_prompt_styles),
    ):
        assert read() == []
    assert api.get_cmd_flags()["api"] is True
    assert api.get_memory()["ram"]["total"] > 0


def test_options_and_the_model_are_read_and_set(api: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert api.util_get_current_model() == "sfumato-builtin"
    api.util_set_model("SFUMATO")
    assert "model changed to sfumato-builtin" in capsys.readouterr().out
    assert api.set_options({"send_seed": False}) is None
    assert api.get_options()["send_seed"] is True


def test_progress_says_ready_and_interrupting_nothing_is_harmless(api: Any) -> None:
    assert api.get_progress()["progress"] == 0.0
    api.util_wait_for_ready(check_interval=0)
    assert api.interrupt() == {}
    assert api.skip() is None
