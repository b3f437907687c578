"""`GET /v1/image/generation/outputs`: shape, pages and filters."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from sfumato.api.stablecog.outputs import PATHS
from sfumato.storage.tables import OutputRow
from tests.api.harness import Api, make_user, run_api, wire_model

OUTPUTS = "/v1/image/generation/outputs"


async def all_pages(api: Api, **params: Any) -> list[list[str]]:
    pages: list[list[str]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get(OUTPUTS, **params, **cursor)).json()
        pages.append([output["id"] for output in page["outputs"]])
        if "next" not in page:
            return pages
        cursor = {"cursor": page["next"]}


async def made(api: Api, count: int, **body: Any) -> list[str]:
    answer = (await api.create(num_outputs=count, **body)).json()
    return [output["id"] for output in answer["outputs"]]


async def test_an_output_has_the_fields_of_both_generations_of_documents(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        ids = await made(api, 2, prompt="a cat", negative_prompt="a dog", seed=9, guidance_scale=7.1)
        body = (await api.get(OUTPUTS)).json()
    assert list(body) == ["total", "total_count", "outputs"]
    assert (body["total"], body["total_count"]) == (2, 2)
    assert [output["id"] for output in body["outputs"]] == ids[::-1]
    output = body["outputs"][1]
    assert list(output) == [
        *("id", "image_url", "created_at", "updated_at", "is_favorited", "gallery_status", "was_auto_submitted"),
        *("is_public", "like_count", "is_liked", "generation"),
    ]
    generation = output["generation"]
    assert list(generation) == [
        *("id", "started_at", "completed_at", "created_at", "user", "prompt", "negative_prompt", "model_id"),
        *("scheduler_id", "width", "height", "seed", "inference_steps", "guidance_scale", "num_outputs"),
        *("status", "outputs"),
    ]
    assert generation["model_id"] == str(wire_model().id)
    assert (generation["prompt"]["text"], generation["negative_prompt"]["text"]) == ("a cat", "a dog")
    assert (generation["seed"], generation["guidance_scale"], generation["status"]) == (9, 7.1, "succeeded")
    assert generation["user"] == {
        "username": "ada",
        "identifier": hashlib.sha256(str(api.user.caller.user_id).encode()).hexdigest(),
    }
    assert [nested["id"] for nested in generation["outputs"]] == ids
    assert list(generation["outputs"][0]) == [
        *("id", "image_url", "gallery_status", "is_favorited", "was_auto_submitted")
    ]
    assert generation["outputs"][0]["image_url"] == output["image_url"]


async def test_a_history_without_pictures_is_an_empty_list(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for path in PATHS:
            assert (await api.get(path)).text == '{"total":0,"total_count":0,"outputs":[]}\n'


async def test_an_absent_negative_prompt_is_left_out(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        await made(api, 1)
        generation = (await api.get(OUTPUTS)).json()["outputs"][0]["generation"]
    assert "negative_prompt" not in generation


async def test_nobody_sees_the_pictures_of_others(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        await made(api, 1)
        other = replace(api, user=await make_user(api.services, name="bob"))
        assert (await other.get(OUTPUTS)).json()["total"] == 0


@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize("per_page", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("equal_times", [False, True])
async def test_pages_neither_skip_nor_repeat(tmp_path: Path, order: str, per_page: int, equal_times: bool) -> None:
    async with run_api(tmp_path) as api:
        for _ in range(3):
            await made(api, 2)
        if equal_times:
            async with api.services.db.write() as session:
                await session.execute(update(OutputRow).values(created_at=datetime(2025, 11, 6, tzinfo=UTC)))
        whole = [output["id"] for output in (await api.get(OUTPUTS, order=order)).json()["outputs"]]
        pages = await all_pages(api, per_page=per_page, order=order)
    assert [page for page in pages for page in page] == whole
    assert len(whole) == 6
    assert all(len(page) == per_page for page in pages[:-1])


async def test_the_cursor_is_the_time_of_the_last_output_and_the_total_is_told_once(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        await made(api, 3)
        first = (await api.get(OUTPUTS, per_page=2)).json()
        second = (await api.get(OUTPUTS, per_page=2, cursor=first["next"])).json()
    assert first["next"] == first["outputs"][-1]["created_at"]
    assert list(first) == ["total", "total_count", "next", "outputs"]
    assert list(second) == ["outputs"]


async def test_filters_change_the_listing_and_the_total(tmp_path: Path) -> None:
    other = wire_model("other")
    async with run_api(tmp_path, models=[wire_model(), other]) as api:
        first = await made(api, 1)
        second = await made(api, 1, model_id=str(other.id))
        by_model = (await api.get(OUTPUTS, model_ids=str(other.id))).json()
        unknown = (await api.get(OUTPUTS, model_ids="00000000-0000-0000-0000-000000000000")).json()
        submitted = (await api.get(OUTPUTS, gallery_status="submitted,approved")).json()
        favorites = (await api.get(OUTPUTS, is_favorited="false")).json()
        time = by_model["outputs"][0]["created_at"]
        before = (await api.get(OUTPUTS, end_dt=time)).json()
        since = (await api.get(OUTPUTS, start_dt=time)).json()
    assert ([output["id"] for output in by_model["outputs"]], by_model["total"]) == (second, 1)
    assert (unknown["total"], submitted["total"], favorites["total"]) == (0, 0, 2)
    assert [output["id"] for output in before["outputs"]] == first
    assert [output["id"] for output in since["outputs"]] == second


BAD_PARAMETERS = [
    ("per_page=x", "per_page must be an integer"),
    ("per_page=1.5", "per_page must be an integer"),
    ("per_page=²", "per_page must be an integer"),
    ("per_page=0", "per_page must be between 1 and 300"),
    ("per_page=-1", "per_page must be between 1 and 300"),
    ("per_page=301", "per_page must be between 1 and 300"),
    ("per_page=" + "9" * 5000, "per_page must be between 1 and 300"),
    ("cursor=yesterday", "cursor must be a valid iso time string"),
    ("cursor=2023-05-27T12:00:00+02:00", "cursor must be a valid iso time string"),
    ("model_ids=x", "invalid model id: x"),
    ("order=up", "invalid order: 'up' expected 'asc' or 'desc'"),
    (
        "gallery_status=good",
        "invalid gallery_status: 'good' expected 'approved', 'rejected', 'submitted', not_submitted,"
        " or 'waiting_for_approval'",
    ),
    ("is_favorited=1", "invalid is_favorited: '1' expected 'true' or 'false'"),
    ("start_dt=x", "invalid start_dt: x"),
    ("end_dt=x", "invalid end_dt: x"),
    ("per_page=0&order=up&cursor=x", "per_page must be between 1 and 300"),
    ("order=up&cursor=x", "invalid order: 'up' expected 'asc' or 'desc'"),
]


async def test_each_bad_parameter_has_its_text(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for query, error in BAD_PARAMETERS:
            response = await api.client.get(f"{OUTPUTS}?{query}", headers=api.user.bearer)
            assert (response.status_code, response.json()) == (400, {"error": error})


async def test_filters_of_later_versions_are_refused_not_ignored(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.get(OUTPUTS, search="cat")
        assert response.status_code == 400
        assert response.json()["error"] == "not_supported"
        assert "search" in response.json()["description"]


async def test_only_the_first_of_a_repeated_parameter_counts(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.get(f"{OUTPUTS}?per_page=2&per_page=x", headers=api.user.bearer)
        assert response.status_code == 200
