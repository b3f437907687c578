"""Models, defaults, credits and health."""

from pathlib import Path

from sfumato.accounts.credits import NEVER, grant
from tests.api.harness import run_api, wire_model
from tests.fakes import FakeHost

MODELS = ("/v1/image/generation/models", "/v1/image/generation/models/", "/v1/image/models/generate")
DEFAULTS = ("/v1/image/generation/defaults", "/v1/image/generation/defaults/", "/v1/image/defaults/generate")
CREDITS = ("/v1/credits", "/v1/credits/")


async def test_models_have_stable_ids_and_the_hosted_services_schedulers(tmp_path: Path) -> None:
    model, other = wire_model(), wire_model("other", default_width=512)
    async with run_api(tmp_path, models=[model, other]) as api:
        bodies = [(await api.client.get(path)).json() for path in MODELS]
    assert bodies[0] == bodies[1] == bodies[2]
    first, second = bodies[0]["models"]
    assert list(first) == ["id", "name", "is_default", "available_schedulers", "default_width", "default_height"]
    assert (first["id"], first["name"], first["is_default"]) == (str(model.id), "test-model", True)
    assert (second["is_default"], second["default_width"]) == (False, 512)
    assert [item["name"] for item in first["available_schedulers"]] == [
        *("K_EULER", "K_EULER_ANCESTRAL", "DPM++_2M", "DDIM", "HEUN"),
        *("K_LMS", "DDPM", "UNI_PC", "PNDM", "DPM++_2S", "DEIS"),
    ]
    assert first["available_schedulers"][3] == {"id": "82cf78dd-6afb-48cc-aca6-14224cca6950", "name": "DDIM"}


async def test_defaults_are_those_of_the_default_model(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for path in DEFAULTS:
            assert (await api.client.get(path)).text == (
                f'{{"model_id":"{wire_model().id}","scheduler_id":"6fb13b76-9900-4fa4-abf8-8f843e034a7f",'
                '"width":256,"height":256,"num_outputs":2,"guidance_scale":7,"inference_steps":30,'
                '"prompt_strength":0.5}\n'
            )


async def test_credits_are_listed_by_grant_and_their_sum_is_what_can_be_spent(tmp_path: Path) -> None:
    async with run_api(tmp_path, credit=50) as api:
        user_id = api.user.caller.user_id
        await grant(api.services.db, user_id, 5)
        await grant(api.services.db, user_id, 7, starts_at=NEVER.replace(year=2099))
        for path in CREDITS:
            body = (await api.get(path)).json()
    assert list(body) == ["total_remaining_credits", "credits"]
    assert body["total_remaining_credits"] == 55
    free = next(item for item in body["credits"] if item["type"]["name"] == "Free")
    assert list(free) == ["id", "remaining_amount", "expires_at", "type"]
    assert (free["remaining_amount"], free["expires_at"]) == (50, "2100-01-01T05:00:00Z")
    assert free["type"] == {
        "id": "3b12b23e-478b-4c18-8e34-70b3f0af1ee6",
        "name": "Free",
        "amount": 50,
        "description": "",
    }
    assert len(body["credits"]) == 3


async def test_health_needs_no_engine_and_no_key(tmp_path: Path) -> None:
    async with run_api(tmp_path, host=FakeHost(says_ready=False)) as api:
        response = await api.client.get("/v1/health")
    assert (response.status_code, response.text) == (200, '{"status":"ok"}\n')
