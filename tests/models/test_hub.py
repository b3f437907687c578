"""Fetching models from the hub, with its client replaced: nothing here touches the network."""

import fnmatch
import hashlib
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from sfumato.core.errors import ModelLoadFailed
from sfumato.models import hub
from sfumato.models.hashing import HashCache


def serve(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    """Have the hub's client answer with this folder, and return what it is asked."""
    asked: dict[str, Any] = {}

    def download(hub_id: str, **options: Any) -> str:
        asked.update(options, hub_id=hub_id)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def cached_weights(tmp_path: Path, data: bytes, name: str) -> Path:
    """Lay a file out as the hub's cache does: a link in the snapshot to a blob under its hash."""
    blob = tmp_path / "blobs" / name
    blob.parent.mkdir()
    blob.write_bytes(data)
    link = tmp_path / "snapshots" / "abc" / "unet" / "model.safetensors"
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    return link


def test_only_safe_files_are_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = serve(monkeypatch, tmp_path)
    assert hub.fetch("owner/name", HashCache(tmp_path / "hashes.json")) == tmp_path
    for name in ("unet/model.bin", "v1-5.ckpt", "vae/x.pt", "v1-5.safetensors"):
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in asked["allow_patterns"])
    for name in ("unet/model.safetensors", "model_index.json", "tokenizer/merges.txt"):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in asked["allow_patterns"])


def test_weights_are_checked_against_the_hash_the_hub_keeps_them_under(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cached_weights(tmp_path, b"weights", hashlib.sha256(b"weights").hexdigest())
    serve(monkeypatch, tmp_path / "snapshots" / "abc")
    hashes = HashCache(tmp_path / "hashes.json")
    hub.fetch("owner/name", hashes)
    assert hashes.known(tmp_path / "blobs" / hashlib.sha256(b"weights").hexdigest()) is not None


def test_damaged_weights_are_refused_and_removed_so_that_they_are_fetched_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = cached_weights(tmp_path, b"something else", hashlib.sha256(b"weights").hexdigest())
    serve(monkeypatch, tmp_path / "snapshots" / "abc")
    with pytest.raises(ModelLoadFailed, match="damaged on its way"):
        hub.fetch("owner/name", HashCache(tmp_path / "hashes.json"))
    assert not link.is_symlink()
    assert list((tmp_path / "blobs").iterdir()) == []


def test_progress_tells_the_bytes_on_disk_and_no_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = serve(monkeypatch, tmp_path)
    told: list[tuple[int, int]] = []
    hub.fetch("owner/name", HashCache(tmp_path / "hashes.json"), lambda done, total: told.append((done, total)))
    network = asked["tqdm_class"](desc="Downloading bytes", total=0, unit="B", unit_scale=True)
    disk = asked["tqdm_class"](desc="Reconstructing (incomplete total...)", total=0, unit="B", unit_scale=True)
    files = asked["tqdm_class"](desc="Fetching 2 files", total=2)
    told.clear()
    disk.total = 100
    for bar in (network, disk, files):
        bar.update(40)
        bar.refresh()
        bar.close()
    assert set(told) == {(40, 100)}
