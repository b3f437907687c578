"""Sfumato's own routes: pages, documentation, pictures, health and metrics."""

import io
import re
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image

from sfumato.accounts.users import Role
from sfumato.storage.database import Database
from tests.api.harness import Api, run_api, wire_model
from tests.fakes import FakeHost, colour_of

ELSEWHERE = re.compile(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""")


async def test_the_page_says_what_runs_here_and_asks_nobody_else(tmp_path: Path) -> None:
    async with run_api(tmp_path, models=[wire_model("<b>model</b>")]) as api:
        response = await api.client.get("/")
    policy = response.headers["content-security-policy"]
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "&lt;b&gt;model&lt;/b&gt; (default)" in response.text
    assert "http://localhost:8000/v1/image/generation/create" in response.text
    assert not ELSEWHERE.search(response.text)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_a_host_header_cannot_put_markup_into_the_page(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.get("/", headers={"Host": "<script>x"})
    assert "<script" not in response.text


async def test_the_documentation_works_offline_and_without_inline_scripts(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        page = await api.client.get("/docs")
        assert not ELSEWHERE.search(page.text)
        assert "unsafe" not in page.headers["content-security-policy"]
        assert not re.search(r"<script(?! src=)|<style", page.text)
        for asset in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            response = await api.client.get(f"/{asset}")
            assert response.status_code == 200, asset
            assert response.headers["content-type"].startswith(("text/javascript", "text/css"))
        assert (await api.client.get("/docs/secret")).status_code == 404


async def test_the_openapi_document_describes_both_apis_and_their_keys(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        document = (await api.client.get("/openapi.json")).json()
    create = document["paths"]["/v1/image/generation/create"]["post"]
    txt2img = document["paths"]["/sdapi/v1/txt2img"]["post"]
    assert create["security"] == [{"bearer": []}]
    assert txt2img["security"] == [{"bearer": []}, {"basic": []}]
    assert "security" not in document["paths"]["/healthz"]["get"]
    assert "inference_steps" in create["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert "cfg_scale" in txt2img["requestBody"]["content"]["application/json"]["schema"]["properties"]
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


async def test_the_process_is_alive_before_an_engine_is_ready(tmp_path: Path) -> None:
    async with run_api(tmp_path, host=FakeHost(says_ready=False)) as api:
        alive, ready = await api.client.get("/healthz"), await api.client.get("/readyz")
    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()) == (503, {"status": "unavailable", "engine": False, "database": True})


async def test_it_is_ready_when_an_engine_and_the_database_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Database) -> None:
        raise OSError("disk gone")

    async with run_api(tmp_path) as api:
        await api.create(num_outputs=1)  # so that the engine is surely up
        ready = await api.client.get("/readyz")
        monkeypatch.setattr(Database, "read", broken)
        unready = await api.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "engine": True, "database": True})
    assert (unready.status_code, unready.json()["database"]) == (503, False)


async def test_metrics_are_for_administrators(tmp_path: Path) -> None:
    async with run_api(tmp_path / "user") as api:
        denied = await api.get("/metrics")
    async with run_api(tmp_path / "admin", role=Role.ADMIN) as api:
        await api.create(num_outputs=1)
        metrics = await api.client.get("/metrics", headers=api.user.basic)
    assert (denied.status_code, denied.json()["error"]) == (403, "forbidden")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "sfumato_images_total 1.0" in metrics.text


class TestPictures:
    async def url(self, api: Api, **values: object) -> str:
        return str((await api.create(num_outputs=1, seed=3, **values)).json()["outputs"][0]["url"])

    async def test_a_picture_is_served_to_anyone_and_may_be_kept(self, tmp_path: Path) -> None:
        async with run_api(tmp_path) as api:
            response = await api.client.get(await self.url(api))
        picture = Image.open(io.BytesIO(response.content))
        assert response.headers["content-type"] == "image/png"
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert (picture.size, picture.getpixel((0, 0))) == ((256, 256), tuple(colour_of(3)))

    async def test_head_tells_the_size_without_the_picture(self, tmp_path: Path) -> None:
        async with run_api(tmp_path) as api:
            url = await self.url(api)
            whole, head = await api.client.get(url), await api.client.head(url)
        assert head.content == b""
        assert head.headers["content-length"] == str(len(whole.content))
        assert head.headers["etag"] == whole.headers["etag"]

    @pytest.mark.parametrize("tags", ["{etag}", "W/{etag}", '"other", {etag}', "*"])
    async def test_a_known_picture_is_not_sent_again(self, tmp_path: Path, tags: str) -> None:
        async with run_api(tmp_path) as api:
            url = await self.url(api)
            etag = (await api.client.get(url)).headers["etag"]
            again = await api.client.get(url, headers={"If-None-Match": tags.format(etag=etag)})
        assert (again.status_code, again.content) == (304, b"")

    async def test_an_address_has_one_spelling(self, tmp_path: Path) -> None:
        async with run_api(tmp_path) as api:
            name = (await self.url(api)).rpartition("/")[2].removesuffix(".png")
            for other in (name.upper(), name.replace("-", ""), f"{{{name}}}", str(uuid4()), "../../sfumato", "x"):
                response = await api.client.get(f"/images/{other}.png")
                assert response.status_code == 404, other

    async def test_addresses_are_under_the_public_url_when_there_is_one(self, tmp_path: Path) -> None:
        async with run_api(tmp_path, public_url="https://pictures.example/sfumato") as api:
            url = await self.url(api)
        assert url.startswith("https://pictures.example/sfumato/images/")
