"""The object store on a local folder, and what it refuses."""

import asyncio
from pathlib import Path

import pytest

from sfumato.core.errors import InvalidRequest, NotFound
from sfumato.storage.objects import ObjectStore


def local_store(folder: Path) -> ObjectStore:
    return ObjectStore.open(folder.as_uri())


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_what_was_put_is_got(tmp_path: Path) -> None:
    store = local_store(tmp_path)
    await store.put("outputs/ab/1.png", b"pixels", "image/png")
    assert await store.get("outputs/ab/1.png") == b"pixels"


async def test_the_folder_is_made_when_missing_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "new é%20 #folder" / "objects"
    await local_store(folder).put("1.png", b"x", "image/png")
    assert (folder / "1.png").read_bytes() == b"x"


async def test_objects_outlive_the_store_that_wrote_them(tmp_path: Path) -> None:
    await local_store(tmp_path).put("a", b"x", "image/png")
    assert await local_store(tmp_path).get("a") == b"x"


async def test_a_second_put_replaces_the_first(tmp_path: Path) -> None:
    store = local_store(tmp_path)
    await store.put("a", b"longer than the second", "image/png")
    await store.put("a", b"second", "image/png")
    assert await store.get("a") == b"second"


async def test_a_reader_never_sees_a_part_of_a_put(tmp_path: Path) -> None:
    store, bodies = local_store(tmp_path), [bytes([n]) * 300_000 for n in range(8)]
    await store.put("a", bodies[0], "image/png")
    puts = [store.put("a", body, "image/png") for body in bodies]
    gets = [store.get("a") for _ in bodies]
    results = await asyncio.gather(*puts, *gets)
    assert all(body in bodies for body in results[len(puts) :])
    assert names_in(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "key", ["missing", "outputs/missing.png", "../outside", "a/../../b", "/etc/passwd", "", "a//b"]
)
async def test_getting_what_is_not_there_is_not_found(key: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await local_store(tmp_path / "s").get(key)


async def test_a_neighbouring_file_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    store = local_store(tmp_path / "s")
    for key in ("../secret", "..%2Fsecret", "x/../../secret", str(tmp_path / "secret")):
        with pytest.raises(NotFound):
            await store.get(key)


@pytest.mark.parametrize("key", ["", "../a", "a/", "/a", "a//b", "a b", "a#1", ".hidden", "é"])
async def test_a_malformed_key_cannot_be_put(key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot name an object"):
        await local_store(tmp_path).put(key, b"", "image/png")


async def test_a_deleted_object_is_gone(tmp_path: Path) -> None:
    store = local_store(tmp_path)
    await store.put("a/b.png", b"x", "image/png")
    await store.delete("a/b.png")
    with pytest.raises(NotFound):
        await store.get("a/b.png")


async def test_deleting_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    await local_store(tmp_path).delete("missing")
    await local_store(tmp_path).delete("../missing")


async def test_a_store_that_is_no_folder_takes_content_types() -> None:
    store = ObjectStore.open("memory:///")
    await store.put("a", b"x", "image/png")
    assert await store.get("a") == b"x"


@pytest.mark.parametrize("url", ["", "nonsense", "gopher://secret@host/x", "file:///proc/nothing/here"])
def test_a_url_that_names_no_store_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ObjectStore.open(url)
    assert caught.value.field == "objects_url"
    assert not url or url not in caught.value.message
