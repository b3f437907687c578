"""Routes of later versions say so."""

from pathlib import Path

from sfumato.api.stablecog.later import ROUTES
from tests.api.harness import run_api


async def test_each_route_of_a_later_version_is_told_apart_from_a_missing_one(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for methods, paths, subject in ROUTES:
            for path in paths:
                for method in methods:
                    concrete = path.replace("{rest:path}", "some/thing")
                    response = await api.client.request(method, concrete, headers=api.user.bearer)
                    assert response.status_code == 501, path
                    assert response.json() == {
                        "error": "not_supported",
                        "description": f"{subject} is not supported by this version of Sfumato.",
                    }
        missing = await api.client.get("/v1/image/nothing", headers=api.user.bearer)
        assert missing.status_code == 404
