"""LoRAs and embeddings are found by name, and what cannot be used is left out with its reason."""

import hashlib
from pathlib import Path

import pytest

from sfumato.core.errors import ModelLoadFailed
from sfumato.core.models import Family
from sfumato.core.requests import AddOn
from sfumato.models.addons import AddOnRegistry, Shelf
from sfumato.models.hashing import HashCache
from tests.factories import make_model, make_settings
from tests.models.model_files import write_safetensors

LORA = {"lora_unet_x.lora_down.weight": (4, 8), "lora_unet_x.lora_up.weight": (8, 4)}


def loras(folder: Path) -> Shelf:
    return AddOnRegistry([folder]).loras


def test_the_usual_folders_of_models_dir_are_searched_and_those_of_the_settings(tmp_path: Path) -> None:
    models, own = tmp_path / "models", tmp_path / "own"
    write_safetensors(models / "Lora" / "sub" / "knight.safetensors", LORA)
    write_safetensors(models / "loras" / "sun.safetensors", LORA)
    write_safetensors(models / "embeddings" / "easy.safetensors", {"emb_params": (3, 768)})
    write_safetensors(own / "moon.safetensors", LORA)
    registry = AddOnRegistry.of(make_settings(tmp_path, models_dir=models, lora_dir=own))
    assert sorted(registry.loras.files) == ["knight", "moon", "sun"]
    assert sorted(registry.embeddings.files) == ["easy"]


def test_a_named_folder_that_is_none_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match="lora_dir"):
        AddOnRegistry.of(make_settings(tmp_path, lora_dir=tmp_path / "absent"))


def test_an_installation_without_folders_has_none(tmp_path: Path) -> None:
    registry = AddOnRegistry.of(make_settings(tmp_path))
    assert (registry.loras, registry.embeddings) == (Shelf(), Shelf())


def test_a_lora_is_found_by_stem_by_alias_and_in_any_case(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "Knight-v2.safetensors", LORA, metadata={"ss_output_name": "knight"})
    shelf = loras(tmp_path)
    for word in ("Knight-v2", "knight", "KNIGHT", "knight-V2"):
        assert shelf.find(word) is shelf.files["Knight-v2"]
    assert shelf.find("knigh") is None


def test_an_alias_that_two_files_share_or_that_means_nothing_is_no_name(tmp_path: Path) -> None:
    for stem, alias in (("a", "same"), ("b", "same"), ("c", "None"), ("d", "addams")):
        write_safetensors(tmp_path / f"{stem}.safetensors", LORA, metadata={"ss_output_name": alias})
    shelf = loras(tmp_path)
    assert [shelf.find(word) for word in ("same", "None", "addams")] == [None] * 3
    assert (shelf.files["a"].alias, shelf.files["c"].alias) == ("same", "c")


def test_what_cannot_be_used_is_skipped_with_its_reason(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "loras", tmp_path / "elsewhere"
    write_safetensors(folder / "good.safetensors", LORA)
    write_safetensors(folder / "sub" / "good.safetensors", LORA)
    write_safetensors(elsewhere / "secret.safetensors", LORA)
    (folder / "link.safetensors").symlink_to(elsewhere / "secret.safetensors")
    (folder / "old.pt").write_bytes(b"PK\x03\x04")
    (folder / "cut.safetensors").write_bytes(b"\x08\x00")
    (folder / "notes.txt").write_text("not looked at")
    shelf = loras(folder)
    assert list(shelf.files) == ["good"]
    assert {name: reason.split(",")[0].split(":")[0] for name, reason in shelf.skipped.items()} == {
        "cut": "cut.safetensors cannot be read as a safetensors file",
        "link": "link.safetensors is a link that leads out of its folder.",
        "old": "old.pt is a pickle",
    }


def test_pictures_that_hold_embeddings_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "art.png").write_bytes(b"\x89PNG")
    assert AddOnRegistry([], [tmp_path]).embeddings.skipped == {
        "art": "art.png is a picture; only .safetensors files are read."
    }


def test_refreshing_finds_new_files_and_forgets_gone_ones(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "old.safetensors", LORA)
    registry = AddOnRegistry([tmp_path])
    assert list(registry.loras.files) == ["old"]
    (tmp_path / "old.safetensors").rename(tmp_path / "new.safetensors")
    assert list(registry.loras.files) == ["old"]
    registry.refresh()
    assert list(registry.loras.files) == ["new"]


def test_files_are_told_by_name_as_long_as_they_are_installed(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", LORA)
    wanted = [AddOn(word=name, name=name, short_hash="0" * 12) for name in ("a", "gone")]
    assert loras(tmp_path).locations(wanted) == {"a": str(tmp_path / "a.safetensors")}


def test_a_loras_hash_is_the_one_its_trainer_wrote_or_that_of_its_weights(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", LORA, metadata={"sshs_model_hash": "ABCDEF012345" * 5})
    write_safetensors(tmp_path / "b.safetensors", LORA, metadata={"sshs_model_hash": "no hash, really"})
    registry = AddOnRegistry([tmp_path], [tmp_path], HashCache(tmp_path / "cache.json"))
    a, b = (registry.loras.files[name] for name in "ab")
    assert registry.lora_hash(a) == "abcdef012345"
    content = (tmp_path / "b.safetensors").read_bytes()
    payload = content[8 + int.from_bytes(content[:8], "little") :]
    for _ in range(2):
        assert registry.lora_hash(b) == hashlib.sha256(payload).hexdigest()[:12]
        assert registry.embedding_hash(b) == hashlib.sha256(content).hexdigest()[:12]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("an EasyNegative, sharp", ["EasyNegative"]),
        ("(easynegative:1.2)", ["EasyNegative"]),
        ("uneasynegative", []),
        ("easynegatives easynegative", ["EasyNegative"]),
        ("bad-hands-5", ["bad-hands-5"]),
        ("bad-hands-50", ["bad-hands-5"]),
        ("my  style!", ["my style"]),
        ("", []),
    ],
)
def test_embeddings_are_found_as_words_of_a_prompt(tmp_path: Path, text: str, found: list[str]) -> None:
    for name in ("EasyNegative", "bad-hands-5", "my style"):
        write_safetensors(tmp_path / f"{name}.safetensors", {"emb_params": (3, 768)})
    assert [file.name for file in AddOnRegistry([], [tmp_path]).embeddings.named_in(text)] == found


@pytest.mark.parametrize(
    ("tensors", "widths", "vectors", "fits_sd1"),
    [
        ({"emb_params": (3, 768)}, {768}, 3, True),
        ({"x": (768,)}, {768}, 1, True),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, {768, 1280}, 2, False),
        ({"emb_params": (3, 1024)}, {1024}, 3, False),
    ],
)
def test_an_embeddings_family_is_told_by_its_widths(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], widths: set[int], vectors: int, fits_sd1: bool
) -> None:
    write_safetensors(tmp_path / "e.safetensors", tensors)
    file = AddOnRegistry([], [tmp_path]).embeddings.files["e"]
    assert (file.widths, file.vectors) == (widths, vectors)
    assert file.fits(make_model(family=Family.SD1)) == fits_sd1
    assert not file.fits(make_model(family=Family.BUILTIN))
