"""Fields of later versions: accepted while they ask for nothing, refused when they ask."""

from pathlib import Path
from typing import Any

from tests.api.harness import run_api

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 5}


ASK_FOR_NOTHING = [
    {"styles": []},
    {"styles": ["None", ""]},
    {"styles": ["never heard of"]},
    {"subseed": 5, "subseed_strength": 0},
    {"seed_resize_from_h": 0, "seed_resize_from_w": 64},
    {"restore_faces": False, "tiling": False},
    {"do_not_save_samples": True, "do_not_save_grid": True},
    {"denoising_strength": 0.7},
    {"s_min_uncond": 0},
    {"refiner_checkpoint": "None", "refiner_switch_at": 0.8},
    {"refiner_checkpoint": ""},
    {"disable_extra_networks": True},
    {"firstpass_image": "", "comments": {"a": 1}},
    {"enable_hr": False, "hr_scale": 3, "hr_upscaler": "Latent", "hr_second_pass_steps": 9, "hr_prompt": "x"},
    {"hr_resize_x": 512, "hr_resize_y": 512, "hr_checkpoint_name": "x", "hr_sampler_name": "y"},
    {"script_name": None, "script_args": [1, 2]},
    {"script_name": "None"},
    {"infotext": ""},
    {"alwayson_scripts": {}},
    {"alwayson_scripts": {"ADetailer": {"args": [False]}}},
    {"alwayson_scripts": {"ADetailer": {"args": [False, True, {"ad_model": "x"}]}}},
    {"alwayson_scripts": {"ControlNet": {"args": []}}},
    {"alwayson_scripts": {"ControlNet": {"args": [{"enabled": False}, {"enabled": False}]}}},
    {"alwayson_scripts": {"roop": []}},
    {"alwayson_scripts": {"roop": None}},
    {"alwayson_scripts": {"roop": {"other": 1}}},
]


async def test_a_field_that_asks_for_nothing_is_accepted(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for body in ASK_FOR_NOTHING:
            assert (await api.txt2img(**SMALL, **body)).status_code == 200, body


ASK = [
    ("restore_faces", {"restore_faces": True}),
    ("tiling", {"tiling": True}),
    ("infotext", {"infotext": "a\nSteps: 5"}),
]


async def test_a_field_that_asks_is_refused_by_name_and_costs_nothing(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for name, body in ASK:
            response = await api.txt2img(**SMALL, **body)
            assert response.status_code == 400
            assert response.json() == {
                "error": "HTTPException",
                "detail": f"{name} is not supported by this version of Sfumato.",
                "body": "",
                "errors": "Leave the field out, or send its default.",
            }
            assert await api.balance() == 100


SCRIPTS = [
    ({"script_name": "X/Y/Z plot"}, "X/Y/Z plot"),
    ({"alwayson_scripts": {"ADetailer": {"args": [True, {"ad_model": "x"}]}}}, "ADetailer"),
    ({"alwayson_scripts": {"controlnet": {"args": [{"module": "canny"}]}}}, "controlnet"),
    ({"alwayson_scripts": {"reactor": ["image", True]}}, "reactor"),
    ({"alwayson_scripts": {"a": {"args": [False]}, "b": {"args": "text"}}}, "b"),
]


async def test_a_script_is_refused_in_upstreams_words(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for body, script in SCRIPTS:
            response = await api.txt2img(**SMALL, **body)
            assert (response.status_code, response.json()["detail"]) == (422, f"Script '{script}' not found")
            assert response.json()["error"] == "HTTPException"
            assert await api.balance() == 100
