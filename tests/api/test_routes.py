"""No route is open but those that are meant to be."""

from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from sfumato.api.auth import StablecogCaller
from sfumato.api.public import is_public, public, undeclared
from tests.api.harness import Api, run_api

PUBLIC = {
    "/",
    "/page.css",
    "/docs",
    "/docs/{name}",
    "/openapi.json",
    "/healthz",
    "/readyz",
    "/images/{output_id}.png",
    "/v1/health",
    "/v1/image/generation/models",
    "/v1/image/generation/models/",
    "/v1/image/models/generate",
    "/v1/image/generation/defaults",
    "/v1/image/generation/defaults/",
    "/v1/image/defaults/generate",
    "/internal/ping",
}
DOCS = Path(__file__).parents[2] / "docs"


def routes_of(api: Api) -> list[APIRoute]:
    assert all(isinstance(route, APIRoute) for route in api.app.routes)
    return [route for route in api.app.routes if isinstance(route, APIRoute)]


async def answers(api: Api, route: APIRoute, headers: dict[str, str]) -> list[httpx.Response]:
    path = route.path.replace("{rest:path}", "x").replace("{output_id}", "x").replace("{name}", "start.js")
    return [await api.client.request(method, path, headers=headers) for method in sorted(route.methods or ())]


async def test_every_route_denies_without_a_key_unless_it_is_listed_as_public(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for route in routes_of(api):
            for response in await answers(api, route, {}):
                if route.path in PUBLIC:
                    assert response.status_code in (200, 404), route.path
                else:
                    assert response.status_code == 401, route.path


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer sc-" + "0" * 64},
        {"Authorization": "Basic Og=="},
        {"Authorization": "nonsense"},
        {"X-Api-Key": "sc-" + "0" * 64},
    ],
    ids=["empty", "unknown key", "empty password", "garbage", "other header"],
)
async def test_every_closed_route_denies_a_bad_key(tmp_path: Path, headers: dict[str, str]) -> None:
    async with run_api(tmp_path) as api:
        for route in routes_of(api):
            if route.path not in PUBLIC:
                assert {r.status_code for r in await answers(api, route, headers)} == {401}, route.path


async def test_the_public_routes_are_exactly_the_documented_ones(tmp_path: Path) -> None:
    section = (DOCS / "http.md").read_text().partition("## Public routes")[2].partition("\n## ")[0]
    async with run_api(tmp_path) as api:
        assert {route.path for route in routes_of(api) if is_public(route)} == PUBLIC
    for path in PUBLIC:
        assert f"`{path}`" in section, path
    assert section.count("\n| `/") == len(PUBLIC)


async def test_every_route_is_documented(tmp_path: Path) -> None:
    documents = " ".join((DOCS / name).read_text() for name in ("http.md", "stablecog.md", "sdapi.md"))
    async with run_api(tmp_path) as api:
        for route in routes_of(api):
            path = route.path.replace("{rest:path}", "...").replace("{output_id}", "<output id>")
            assert path.rstrip("/") in documents, path


def test_a_route_that_forgets_to_ask_for_a_caller_is_found() -> None:
    router = APIRouter()

    @router.get("/open")
    async def forgetful() -> None: ...

    @router.get("/closed")
    async def careful(_caller: StablecogCaller) -> None: ...

    @router.get("/public")
    @public
    async def declared() -> None: ...

    assert undeclared(router.routes) == ["/open"]


def test_mounts_and_plain_routes_count_as_undeclared() -> None:
    @public
    async def endpoint() -> None: ...

    assert undeclared([Mount("/static", app=FastAPI()), Route("/plain", endpoint)]) == ["/static", "/plain"]
