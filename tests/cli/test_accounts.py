"""`sfumato users` and `sfumato keys`: what they do to the database and what they print."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from sfumato.accounts import keys
from sfumato.cli.database import with_database
from sfumato.core.errors import SfumatoError, Unauthorized
from sfumato.settings import Settings
from sfumato.storage.database import Database
from tests.cli.command import run

KEY = re.compile(r"sc-[0-9a-f]{64}")


def caller_of(key: str) -> str:
    async def ask() -> str:
        db = await Database.open(Settings.load().database_url)
        try:
            return (await keys.authenticate(db, key)).username
        finally:
            await db.close()

    return asyncio.run(ask())


def test_a_user_begins_with_the_credits_of_the_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_INITIAL_USER_CREDITS", "7")
    monkeypatch.setenv("SFUMATO_INITIAL_ADMIN_CREDITS", "9")
    assert run(capsys, "users", "create", "ada", "--json").json["credits"] == 7
    assert run(capsys, "users", "create", "eve", "--role", "admin", "--json").json["credits"] == 9
    assert run(capsys, "users", "create", "sam", "--credits", 0, "--json").json["credits"] == 0
    listed = run(capsys, "users", "list", "--json").json
    assert [(user["username"], user["role"], user["credits"]) for user in listed] == [
        ("ada", "user", 7),
        ("eve", "admin", 9),
        ("sam", "user", 0),
    ]


def test_granted_credits_are_added(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "users", "create", "ada", "--credits", 5)
    result = run(capsys, "users", "grant-credits", "ada", 10, "--json")
    assert (result.json["granted"], result.json["credits"]) == (10, 15)
    assert "15" in run(capsys, "users", "list").out


def test_a_key_works_until_it_is_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "users", "create", "ada")
    created = run(capsys, "keys", "create", "--user", "ada", "--name", "laptop", "--json").json
    assert KEY.fullmatch(created["key"])
    assert caller_of(created["key"]) == "ada"
    revoked = run(capsys, "keys", "revoke", created["id"], "--json")
    assert revoked.json == {"id": created["id"], "is_active": False}
    with pytest.raises(Unauthorized):
        caller_of(created["key"])


def test_a_new_key_is_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a script can take it: KEY=$(sfumato keys create --user ada)."""
    run(capsys, "users", "create", "ada")
    assert KEY.fullmatch(run(capsys, "keys", "create", "--user", "ada").out.strip())


def test_lists_show_no_whole_key(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ada", "eve"):
        run(capsys, "users", "create", name)
        run(capsys, "keys", "create", "--user", name, "--name", f"{name}'s")
    listed = run(capsys, "keys", "list", "--json")
    assert [key["username"] for key in listed.json] == ["eve", "ada"]
    assert [key["username"] for key in run(capsys, "keys", "list", "--user", "ada", "--json").json] == ["ada"]
    shown = run(capsys, "keys", "list").out
    assert "eve's" in shown
    assert not KEY.search(listed.out + shown)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("users", "create", "x"), 2, "3 to 25 letters"),
        (("users", "create", "ada"), 1, "already a user"),
        (("users", "create", "eve", "--role", "king"), 2, "--role"),
        (("users", "create", "eve", "--credits", "-1"), 2, "--credits"),
        (("users", "grant-credits", "nobody", "1"), 1, "no user 'nobody'"),
        (("users", "grant-credits", "ada", "0"), 2, "AMOUNT"),
        (("users", "grant-credits", "ada", "1", "--type", "Gold"), 2, "no credit type"),
        (("keys", "create", "--user", "nobody"), 1, "no user 'nobody'"),
        (("keys", "create"), 1, "no user 'admin'"),
        (("keys", "list", "--user", "nobody"), 1, "no user 'nobody'"),
        (("keys", "revoke", str(uuid4())), 1, "no such key"),
        (("keys", "revoke", "sc-...abcd"), 2, "ID"),
    ],
)
def test_failures_end_with_their_code_and_words(
    arguments: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "users", "create", "ada")
    result = run(capsys, *arguments)
    assert (result.code, result.out) == (code, "")
    assert words in result.err


def test_an_unusable_database_is_one_line_without_its_address(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    result = run(capsys, "users", "list")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "database cannot be used" in result.err


@pytest.mark.parametrize("url", ["nonsense", "postgresql+nothing://u:hunter2@h/d", "mysql://u:hunter2@h/d"])
def test_a_database_url_is_never_quoted(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_DATABASE_URL", url)
    result = run(capsys, "users", "list")
    assert result.code == 1
    assert "hunter2" not in result.err
    assert url not in result.err


def test_the_database_is_closed_also_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Database] = []
    closed: list[Database] = []

    async def fail(db: Database) -> None:
        opened.append(db)
        raise SfumatoError("no")

    async def close(self: Database, really: Callable[[Database], Awaitable[None]] = Database.close) -> None:
        closed.append(self)
        await really(self)

    monkeypatch.setattr(Database, "close", close)
    with pytest.raises(SfumatoError):
        with_database(Settings.load(data_dir=tmp_path / "d"), fail)
    assert opened
    assert closed == opened
