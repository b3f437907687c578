"""The hash cache: right, remembered, and never in the way."""

import hashlib
import os
from pathlib import Path

import pytest

from sfumato.core.errors import ModelLoadFailed
from sfumato.models.hashing import HashCache


def write(path: Path, data: bytes, *, mtime_ns: int = 1_000_000_000) -> Path:
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def test_the_hash_is_the_files_sha256(tmp_path: Path) -> None:
    file = write(tmp_path / "m", b"weights")
    assert HashCache(tmp_path / "cache.json").compute(file) == hashlib.sha256(b"weights").hexdigest()


def test_a_hash_is_remembered_between_runs(tmp_path: Path) -> None:
    file = write(tmp_path / "m", b"weights")
    first = HashCache(tmp_path / "data" / "cache.json").compute(file)
    write(file, b"WEIGHTS")  # same size and time: were the file read again, its hash would differ
    again = HashCache(tmp_path / "data" / "cache.json")
    assert (again.known(file), again.compute(file)) == (first, first)


@pytest.mark.parametrize(("data", "mtime_ns"), [(b"WEIGHTS", 2_000_000_000), (b"longer weights", 1_000_000_000)])
def test_a_changed_file_is_hashed_again(data: bytes, mtime_ns: int, tmp_path: Path) -> None:
    file, cache = write(tmp_path / "m", b"weights"), HashCache(tmp_path / "cache.json")
    cache.compute(file)
    write(file, data, mtime_ns=mtime_ns)
    assert cache.known(file) is None
    assert cache.compute(file) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}', "\0", "[" * 100_000])
def test_a_damaged_cache_is_as_good_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text(text)
    file = write(tmp_path / "m", b"weights")
    assert HashCache(tmp_path / "cache.json").compute(file) == hashlib.sha256(b"weights").hexdigest()
    assert HashCache(tmp_path / "cache.json").known(file) is not None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "not-a-folder").write_text("")
    file = write(tmp_path / "m", b"weights")
    assert len(HashCache(tmp_path / "not-a-folder" / "cache.json").compute(file)) == 64


def test_no_other_file_is_left_beside_the_cache(tmp_path: Path) -> None:
    HashCache(tmp_path / "data" / "cache.json").compute(write(tmp_path / "m", b"weights"))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cache.json"]


def test_a_file_that_is_gone_is_a_model_that_failed_to_load(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed):
        HashCache(tmp_path / "cache.json").compute(tmp_path / "missing")
