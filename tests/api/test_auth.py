"""Who gets in, by which header, and who does not."""

import base64
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sfumato.accounts.keys import create_key, revoke_key
from sfumato.accounts.users import Role, create_user, ensure_administrator
from tests.api.harness import Api, basic, run_api

CREDITS = "/v1/credits"
OPTIONS = "/sdapi/v1/options"


@pytest.mark.parametrize("header", ["{key}", "bearer {key}", "Bearer  {key}", "Bearer Bearer {key}", "Token {key}"])
async def test_stablecog_takes_the_word_bearer_once_and_a_key(tmp_path: Path, header: str) -> None:
    async with run_api(tmp_path) as api:
        good = await api.client.get(CREDITS, headers=api.user.bearer)
        bad = await api.client.get(CREDITS, headers=[(b"authorization", header.format(key=api.user.key).encode())])
        assert good.status_code == 200
        assert (bad.status_code, bad.text) == (401, '{"error":"Unauthorized"}\n')


async def test_stablecog_does_not_take_basic(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        assert (await api.client.get(CREDITS, headers=api.user.basic)).status_code == 401


async def test_a_revoked_key_opens_nothing(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        key = await create_key(api.services.db, api.user.caller.user_id)
        headers = {"Authorization": f"Bearer {key.key}"}
        assert (await api.client.get(CREDITS, headers=headers)).status_code == 200
        await revoke_key(api.services.db, key.id)
        for path in (CREDITS, OPTIONS, "/metrics"):
            assert (await api.client.get(path, headers=headers)).status_code == 401


async def test_sdapi_takes_a_key_as_bearer_or_as_the_password_of_basic(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for headers in (api.user.bearer, api.user.basic, basic("", api.user.key), basic(api.user.key, "")):
            assert (await api.client.get(OPTIONS, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "Not authenticated"),
        ({"Authorization": ""}, "Not authenticated"),
        ({"Authorization": "Basic !!!"}, "Not authenticated"),
        ({"Authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()}, "Not authenticated"),
        (basic("user", "password"), "Incorrect username or password"),
        ({"Authorization": "Bearer sc-" + "0" * 64}, "Incorrect username or password"),
    ],
)
async def test_sdapi_says_why_in_its_own_shape(tmp_path: Path, headers: dict[str, str], detail: str) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.get(OPTIONS, headers=headers)
        assert response.status_code == 401
        assert response.json() == {"error": "HTTPException", "detail": detail, "body": "", "errors": ""}
        assert response.headers["www-authenticate"].startswith("Basic ")


class TestOpenOnLoopback:
    """`sdapi_open_on_loopback`: no key needed, by provably local callers only."""

    OPEN: ClassVar[dict[str, Any]] = {"sdapi_open_on_loopback": True}

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": ""},
            {"Authorization": "Basic Og=="},
            {"Authorization": "Basic null"},
            {"Origin": "http://localhost:8000"},
            {"Host": "127.0.0.1:8000"},
            {"Host": "[::1]:8000"},
            {"Sec-Fetch-Site": "same-origin"},
        ],
    )
    async def test_lets_local_callers_in(self, tmp_path: Path, headers: dict[str, str]) -> None:
        async with run_api(tmp_path, **self.OPEN) as api:
            await make_administrator(api)
            assert (await api.client.get(OPTIONS, headers=headers)).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"Host": "sfumato.example"},
            {"Host": "localhost.example:8000"},
            {"Host": ""},
            {"Host": "[::1"},
            {"Origin": "https://evil.example"},
            {"Origin": "http://localhost:9999"},
            {"Origin": "null"},
            {"Origin": "http://[::1"},
            {"Sec-Fetch-Site": "cross-site"},
            {"X-Forwarded-For": "203.0.113.9"},
            {"Forwarded": "for=203.0.113.9"},
        ],
    )
    async def test_keeps_web_pages_and_proxies_out(self, tmp_path: Path, headers: dict[str, str]) -> None:
        async with run_api(tmp_path, **self.OPEN) as api:
            await make_administrator(api)
            assert (await api.client.get(OPTIONS, headers=headers)).status_code == 401

    @pytest.mark.parametrize("address", ["192.0.2.7", "::ffff:192.0.2.7", "testclient", "10.0.0.1"])
    async def test_keeps_other_machines_out(self, tmp_path: Path, address: str) -> None:
        async with run_api(tmp_path, client_address=address, **self.OPEN) as api:
            await make_administrator(api)
            assert (await api.client.get(OPTIONS)).status_code == 401

    async def test_is_off_unless_told(self, tmp_path: Path) -> None:
        async with run_api(tmp_path) as api:
            await make_administrator(api)
            assert (await api.client.get(OPTIONS)).status_code == 401

    async def test_opens_no_other_dialect(self, tmp_path: Path) -> None:
        async with run_api(tmp_path, **self.OPEN) as api:
            await make_administrator(api)
            assert (await api.client.get(CREDITS)).status_code == 401
            assert (await api.client.get("/metrics")).status_code == 401

    async def test_is_closed_where_there_is_no_administrator(self, tmp_path: Path) -> None:
        async with run_api(tmp_path, **self.OPEN) as api:
            assert (await api.client.get(OPTIONS)).status_code == 401

    async def test_a_good_key_is_still_its_owner(self, tmp_path: Path) -> None:
        async with run_api(tmp_path, **self.OPEN) as api:
            await make_administrator(api)
            await api.txt2img(width=64, height=64)
            assert await api.balance() == 99


async def make_administrator(api: Api) -> None:
    """Make the first administrator, although "ada" is there already."""
    assert await ensure_administrator(api.services.db, 10) is None
    await create_user(api.services.db, "root", Role.ADMIN, initial_credits=10)
