"""The prompt language on the wire: styles, comments, LoRAs, embeddings and options, from body to engine and back."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from sfumato.api.sdapi.fields import Txt2ImgBody
from sfumato.api.sdapi.options import CheckpointChoices, read_overrides
from sfumato.api.sdapi.prompts import read_prompts
from sfumato.api.sdapi.styles import StyleBook
from sfumato.core.errors import UnusableAddOn
from sfumato.core.messages import Failed, Finished, Generate
from sfumato.core.models import Family
from sfumato.core.requests import AddOn, Emphasis, PromptOptions
from sfumato.models.addons import AddOnRegistry
from sfumato.storage.infotext import parse
from tests.api.harness import Api, make_user, run_api, wire_model
from tests.factories import make_registry
from tests.fakes import FakeHost
from tests.models.model_files import write_safetensors

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 5}
NOTES = "x-sfumato-notes"
OPTIONS = "/sdapi/v1/options"
LORA = {"lora_unet_x.lora_up.weight": (8, 4)}
HASH = "abcdef012345"


def sent(api: Api) -> Generate:
    return [message for message in api.host.sent if isinstance(message, Generate)][-1]


def info(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.json()["info"])
    return found


def install(api: Api, folder: Path) -> None:
    """Give the installation a LoRA, a pickled one and two embeddings."""
    loras, embeddings = folder / "loras", folder / "embeddings"
    write_safetensors(
        loras / "knight-v2.safetensors",
        LORA,
        metadata={"ss_output_name": "knight", "sshs_model_hash": HASH},
    )
    (loras / "old.pt").write_bytes(b"PK\x03\x04")
    write_safetensors(embeddings / "easy.safetensors", {"emb_params": (2, 768)})
    write_safetensors(embeddings / "wide.safetensors", {"emb_params": (4, 1024)})
    found = AddOnRegistry([loras], [embeddings])
    object.__setattr__(api.services.registry, "add_ons", found)


def sd1_model() -> Any:
    return wire_model("sd", family=Family.SD1)


async def test_a_lora_goes_from_the_prompt_to_the_engine_and_back_in_the_infotext(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        install(api, tmp_path)
        response = await api.txt2img(**SMALL, prompt="a cat <lora:knight:0.5:0.8>")
        message = sent(api)
    assert message.request.prompt == "a cat <lora:knight:0.5:0.8>"
    assert message.request.adapters == (AddOn(word="knight", name="knight-v2", short_hash=HASH),)
    assert message.adapters == {"knight-v2": str(tmp_path / "loras" / "knight-v2.safetensors")}
    found = parse(info(response)["infotexts"][0])
    assert (found["Prompt"], found["Lora hashes"]) == ("a cat <lora:knight:0.5:0.8>", f"knight: {HASH}")
    assert info(response)["extra_generation_params"]["Lora hashes"] == f"knight: {HASH}"
    assert NOTES not in response.headers


async def test_an_unknown_lora_is_left_out_and_noted(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.txt2img(**SMALL, prompt="a cat <lora:nobody:1>")
        assert sent(api).request.adapters == ()
    assert response.status_code == 200
    assert response.headers[NOTES] == "There is no LoRA named 'nobody'; it was left out."
    assert "Lora hashes" not in info(response)["infotexts"][0]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("<lora:knight:strong>", "'strong' is no number"),
        ("<lora:old:1>", "old.pt is a pickle"),
        ("<hypernet:x:1>", "Hypernetworks are not supported"),
    ],
)
async def test_tags_that_cannot_be_carried_out_are_refused_and_cost_nothing(
    tmp_path: Path, prompt: str, reason: str
) -> None:
    async with run_api(tmp_path) as api:
        install(api, tmp_path)
        response = await api.txt2img(**SMALL, prompt=prompt)
        assert await api.balance() == 100
    assert response.status_code == 400
    assert reason in response.json()["detail"]


async def test_switched_off_extra_networks_are_not_looked_up(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        install(api, tmp_path)
        for prompt in ("<lora:knight:1> <lora:nobody:1>", "<hypernet:x:1>"):
            response = await api.txt2img(**SMALL, prompt=prompt, disable_extra_networks=True)
            assert (response.status_code, sent(api).request.adapters) == (200, ())
            assert NOTES not in response.headers


async def test_tags_in_the_negative_prompt_are_text(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        install(api, tmp_path)
        response = await api.txt2img(**SMALL, prompt="", negative_prompt="<lora:knight:1> <lora:nobody:1>")
        assert sent(api).request.adapters == ()
    assert NOTES not in response.headers


async def test_a_lora_that_the_engine_cannot_use_fails_the_request_with_its_reason(tmp_path: Path) -> None:
    class Refusing(FakeHost):
        def _answer(self, message: Any) -> None:
            if isinstance(message, Generate):
                text = "The LoRA knight-v2 does not fit this model: another family."
                self.emit(Failed(job_id=message.job_id, code=UnusableAddOn.code, message=text))

    async with run_api(tmp_path, host=Refusing()) as api:
        install(api, tmp_path)
        response = await api.txt2img(**SMALL, prompt="<lora:knight:1>")
        assert await api.balance() == 100
    assert response.status_code == 400
    assert response.json()["detail"] == "The LoRA knight-v2 does not fit this model: another family."


async def test_the_engines_notes_come_with_the_answer(tmp_path: Path) -> None:
    class Noting(FakeHost):
        def emit(self, *events: Any) -> None:
            super().emit(
                *(
                    Finished(job_id=event.job_id, notes=("The '[' is never closed.",))
                    if isinstance(event, Finished)
                    else event
                    for event in events
                )
            )

    async with run_api(tmp_path, host=Noting()) as api:
        response = await api.txt2img(**SMALL, prompt="<lora:nobody:1> [a:b:1")
    assert response.headers[NOTES] == ("There is no LoRA named 'nobody'; it was left out. The '[' is never closed.")


async def test_embeddings_are_found_in_both_prompts_and_named_in_the_infotext(tmp_path: Path) -> None:
    async with run_api(tmp_path, models=[sd1_model()]) as api:
        install(api, tmp_path)
        response = await api.txt2img(**SMALL, prompt="a cat, wide", negative_prompt="(EASY:1.2)")
        message = sent(api)
    assert [embedding.name for embedding in message.request.embeddings] == ["easy"]
    assert message.embeddings == {"easy": str(tmp_path / "embeddings" / "easy.safetensors")}
    assert parse(info(response)["infotexts"][0])["TI hashes"] == f"easy: {message.request.embeddings[0].short_hash}"
    assert response.headers[NOTES] == "The embedding wide was made for another family; its name is only a word."


async def test_styles_come_first_and_comments_are_stripped_after_them(tmp_path: Path) -> None:
    rows = 'name,prompt,negative_prompt\nfilm,"film still of {prompt}, # grain\n35mm",\nclean,sharp,blurry\n'
    (tmp_path / "styles.csv").write_text(rows, encoding="utf-8-sig")
    async with run_api(tmp_path) as api:
        response = await api.txt2img(
            **SMALL, prompt="a cat", negative_prompt="dog", styles=["film", "clean", "None", "x"]
        )
        wanted = sent(api).request
        listed = (await api.get("/sdapi/v1/prompt-styles")).json()
    assert (wanted.prompt, wanted.negative_prompt) == ("film still of a cat, \n35mm, sharp", "dog, blurry")
    assert info(response)["prompt"] == wanted.prompt
    assert info(response)["styles"] == ["film", "clean", "None", "x"]
    assert response.json()["parameters"]["prompt"] == "a cat"
    assert response.headers[NOTES] == "There is no style named 'x'."
    assert listed[1] == {"name": "clean", "prompt": "sharp", "negative_prompt": "blurry"}


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"prompt\nno name column\n", b'name,prompt\n"a', b"name\nx\n"]
)
async def test_a_styles_file_of_any_content_is_no_fault(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "styles.csv").write_bytes(content)
    async with run_api(tmp_path) as api:
        assert (await api.get("/sdapi/v1/prompt-styles")).status_code == 200
        assert (await api.txt2img(**SMALL, styles=["y"])).status_code == 200


async def test_prompt_options_of_a_request_reach_the_engine_and_the_infotext(tmp_path: Path) -> None:
    overrides = {
        "CLIP_stop_at_last_layers": 2,
        "emphasis": "No norm",
        "comma_padding_backtrack": "0",
        "enable_prompt_comments": False,
    }
    async with run_api(tmp_path) as api:
        response = await api.txt2img(**SMALL, prompt="a (cat) # 1", override_settings=overrides)
        wanted = sent(api).request
        await api.txt2img(**SMALL, prompt="a (cat) # 1")
        assert sent(api).request.prompt_options == PromptOptions()
    assert wanted.prompt_options == PromptOptions(emphasis=Emphasis.NO_NORM, clip_skip=2, comma_backtrack_tokens=0)
    assert wanted.prompt == "a (cat) # 1"
    found = parse(info(response)["infotexts"][0])
    assert (found["Clip skip"], found["Emphasis"]) == ("2", "No norm")
    assert info(response)["clip_skip"] == 2
    assert "x-sfumato-ignored" not in response.headers


async def test_prompt_options_are_each_callers_own(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        stranger = await make_user(api.services, name="bob")
        body = {"CLIP_stop_at_last_layers": 2.0, "emphasis": "ignore"}
        response = await api.client.post(OPTIONS, json=body, headers=api.user.basic)
        assert (response.status_code, response.text) == (200, "null")
        mine = (await api.get(OPTIONS)).json()
        theirs = (await api.client.get(OPTIONS, headers=stranger.basic)).json()
        await api.txt2img(**SMALL)
        assert sent(api).request.prompt_options == PromptOptions(emphasis=Emphasis.IGNORE, clip_skip=2)
    assert (mine["CLIP_stop_at_last_layers"], mine["emphasis"]) == (2.0, "Ignore")
    assert (theirs["CLIP_stop_at_last_layers"], theirs["emphasis"]) == (1.0, "Original")


async def test_overrides_that_are_not_restored_stay(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        body = {"override_settings": {"CLIP_stop_at_last_layers": 3}, "override_settings_restore_afterwards": False}
        await api.txt2img(**SMALL, **body)
        assert (await api.get(OPTIONS)).json()["CLIP_stop_at_last_layers"] == 3.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CLIP_stop_at_last_layers", 0),
        ("CLIP_stop_at_last_layers", "x"),
        ("CLIP_stop_at_last_layers", [1]),
        ("comma_padding_backtrack", 75),
        ("emphasis", "loud"),
    ],
)
async def test_a_bad_value_of_a_prompt_option_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    async with run_api(tmp_path) as api:
        by_request = await api.txt2img(**SMALL, override_settings={key: value})
        by_option = await api.client.post(OPTIONS, json={key: value}, headers=api.user.basic)
    for response in (by_request, by_option):
        assert response.status_code == 400
        assert key in response.json()["detail"]


async def test_loras_are_listed_without_telling_where_they_lie_and_found_anew(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        install(api, tmp_path)
        (first,) = (await api.get("/sdapi/v1/loras")).json()
        write_safetensors(tmp_path / "loras" / "sun.safetensors", LORA)
        refreshed = await api.client.post("/sdapi/v1/refresh-loras", headers=api.user.basic)
        names = [each["name"] for each in (await api.get("/sdapi/v1/loras")).json()]
    assert (first["name"], first["alias"], first["path"]) == ("knight-v2", "knight", "knight-v2.safetensors")
    assert first["metadata"]["ss_output_name"] == "knight"
    assert (refreshed.status_code, refreshed.text) == (200, "null")
    assert names == ["knight-v2", "sun"]


async def test_embeddings_are_listed_by_whether_the_callers_model_takes_them(tmp_path: Path) -> None:
    async with run_api(tmp_path, models=[sd1_model()]) as api:
        install(api, tmp_path)
        (tmp_path / "embeddings" / "art.png").write_bytes(b"")
        await api.client.post("/sdapi/v1/refresh-embeddings", headers=api.user.basic)
        listed = (await api.get("/sdapi/v1/embeddings")).json()
    fields = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None}
    assert listed["loaded"] == {"easy": {**fields, "shape": 768, "vectors": 2}}
    assert sorted(listed["skipped"]) == ["art", "wide"]
    assert listed["skipped"]["wide"]["shape"] == 1024
    assert "picture" in listed["skipped"]["art"]["reason"]


def test_a_second_passes_prompts_have_styles_and_loras_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text("name,prompt,negative_prompt\nclean,sharp,\n")
    write_safetensors(tmp_path / "loras" / "sun.safetensors", LORA, metadata={"sshs_model_hash": HASH})
    choices = CheckpointChoices(make_registry(wire_model()))
    body = Txt2ImgBody(prompt="a", hr_prompt="b<lora:sun:1> # x", styles=["clean"], enable_hr=True)
    overrides = read_overrides(choices, uuid4(), {})
    book, add_ons = StyleBook(tmp_path / "styles.csv"), AddOnRegistry([tmp_path / "loras"])
    found = read_prompts(body, overrides, book, add_ons)
    assert (found.prompt, found.hr_prompt, found.hr_negative_prompt) == ("a, sharp", "b<lora:sun:1> \n", "")
    assert [add_on.name for add_on in found.adapters] == ["sun"]
