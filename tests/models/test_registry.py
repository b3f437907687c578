"""The registry: what a scan finds, what it refuses, and by which words a model is found."""

import hashlib
from pathlib import Path
from uuid import uuid4

import pytest

from sfumato.core.errors import ModelLoadFailed, UnknownModel
from sfumato.core.ids import derived_id
from sfumato.core.models import Family
from sfumato.models import hub
from sfumato.models.registry import ModelRegistry
from sfumato.settings import Settings
from tests.models.model_files import write_safetensors, write_sd1_file, write_sd1_folder, write_vae


def scan(tmp_path: Path, *model: Path | str, compute_hashes: bool = False, **flags: object) -> ModelRegistry:
    settings = Settings.load(data_dir=tmp_path / "data", model=[str(each) for each in model], **flags)
    return ModelRegistry.scan(settings, compute_hashes=compute_hashes)


def test_the_built_in_model_is_always_there_and_the_default(tmp_path: Path) -> None:
    registry = scan(tmp_path)
    assert [model.name for model in registry.models] == ["sfumato-builtin"]
    model = registry.default
    assert (model.family, model.title, model.default_width, model.default_height) == (
        Family.BUILTIN,
        "sfumato-builtin",
        256,
        256,
    )
    assert model.id == derived_id("model", "sfumato-builtin")


def test_the_first_model_named_is_the_default(tmp_path: Path) -> None:
    first, second = write_sd1_file(tmp_path / "one.safetensors"), write_sd1_folder(tmp_path / "two")
    registry = scan(tmp_path, first, second)
    assert [model.name for model in registry.models] == ["sfumato-builtin", "one", "two"]
    assert (registry.default.name, registry.default.default_width) == ("one", 512)


def test_a_files_title_and_hash_are_as_automatic1111_gives_them(tmp_path: Path) -> None:
    path = write_sd1_file(tmp_path / "my model.v2.safetensors", payload=b"weights")
    model = scan(tmp_path, path).default
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (model.name, model.sha256) == ("my model.v2", sha256)
    assert model.title == f"my model.v2.safetensors [{sha256[:10]}]"
    assert (tmp_path / "data" / "model-hashes.json").is_file()


def test_a_link_to_a_file_of_another_name_keeps_the_name_given(tmp_path: Path) -> None:
    """A download cache keeps files under their hashes, without an ending, and links to them."""
    blob = write_sd1_file(tmp_path / "m.safetensors").rename(tmp_path / "0a1b2c")
    link = tmp_path / "dream.safetensors"
    link.symlink_to(blob)
    model = scan(tmp_path, link).default
    assert (model.name, model.location) == ("dream", str(link))


def test_a_folder_has_no_hash(tmp_path: Path) -> None:
    model = scan(tmp_path, write_sd1_folder(tmp_path / "m")).default
    assert (model.name, model.title, model.sha256) == ("m", "m", None)


@pytest.mark.parametrize("case", [str, str.upper, str.lower, str.title])
@pytest.mark.parametrize("word", ["name", "title", "bare title", "file", "short hash", "sha256", "id", "name [hash]"])
def test_a_model_is_found_by_every_word_clients_use(word: str, case: type[str], tmp_path: Path) -> None:
    write_sd1_file(tmp_path / "models" / "sub" / "Dream.safetensors")
    registry = scan(tmp_path, models_dir=tmp_path / "models", compute_hashes=True)
    model = registry.models[1]
    assert model.sha256 is not None
    words = {
        "name": "sub_Dream",
        "title": model.title,
        "bare title": "sub/Dream.safetensors",
        "file": "Dream.safetensors",
        "short hash": model.sha256[:10],
        "sha256": model.sha256,
        "id": str(model.id),
        "name [hash]": f"Dream [{model.sha256[:10]}]",
    }
    assert registry.find(f" {case(words[word])} ") is model
    assert registry.by_id(model.id) is model


def test_an_unknown_model_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    registry = scan(tmp_path)
    for text in ("nothing", "", "[abc]", "x" * 10_000):
        with pytest.raises(UnknownModel) as caught:
            registry.find(text)
        assert "sfumato-builtin" in caught.value.hint
        assert len(caught.value.message) < 300
    with pytest.raises(UnknownModel):
        registry.by_id(uuid4())


def test_two_models_of_one_name_get_two_names_and_ids(tmp_path: Path) -> None:
    paths = [write_sd1_file(tmp_path / folder / "m.safetensors", payload=folder.encode()) for folder in ("a", "b")]
    first, second = scan(tmp_path, *paths).models[1:]
    assert (first.name, second.name) == ("m", "m-2")
    assert first.id != second.id


def test_one_location_named_twice_is_one_model(tmp_path: Path) -> None:
    path = write_sd1_file(tmp_path / "models" / "m.safetensors")
    registry = scan(tmp_path, path, path, models_dir=tmp_path / "models")
    assert [model.name for model in registry.models] == ["sfumato-builtin", "m"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("m.ckpt", "pickle"), ("missing.ckpt", "pickle"), ("missing.safetensors", "neither"), ("a/b/c", "neither")],
)
def test_a_named_model_that_is_unfit_fails_the_scan(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "m.ckpt").write_bytes(b"\x80\x02")
    with pytest.raises(ModelLoadFailed, match=reason):
        scan(tmp_path, tmp_path / name)


def test_what_is_unfit_in_the_models_folder_is_left_out_with_its_reason(tmp_path: Path) -> None:
    root = tmp_path / "models"
    write_sd1_file(root / "good.safetensors")
    write_sd1_folder(root / "set" / "folder")
    write_safetensors(root / "sub" / "odd.safetensors", {"a": [1]})
    write_sd1_file(root / ".hidden" / "m.safetensors")
    (root / "old.ckpt").write_bytes(b"")
    (root / "notes.txt").write_text("")
    registry = scan(tmp_path, models_dir=root)
    assert [model.name for model in registry.models] == ["sfumato-builtin", "good", "set_folder"]
    assert [skipped.location for skipped in registry.skipped] == ["old.ckpt", "sub/odd.safetensors"]
    assert "pickle" in registry.skipped[0].reason


def test_files_of_the_models_folder_are_hashed_only_when_asked(tmp_path: Path) -> None:
    write_sd1_file(tmp_path / "models" / "m.safetensors")
    models_dir = tmp_path / "models"
    assert scan(tmp_path, models_dir=models_dir).models[1].title == "m.safetensors"
    hashed = scan(tmp_path, models_dir=models_dir, compute_hashes=True).models[1]
    assert hashed.sha256 is not None
    assert scan(tmp_path, models_dir=models_dir).models[1] == hashed


def test_links_out_of_the_models_folder_are_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "models"
    write_sd1_file(root / "inside.safetensors")
    (root / "alias.safetensors").symlink_to(root / "inside.safetensors")
    (root / "outside.safetensors").symlink_to(write_sd1_file(tmp_path / "elsewhere.safetensors"))
    (root / "linked").symlink_to(write_sd1_folder(tmp_path / "other"))
    folder = write_sd1_folder(root / "mixed")
    (folder / "vae" / "config.json").symlink_to(tmp_path / "elsewhere.safetensors")
    registry = scan(tmp_path, models_dir=root)
    assert [model.name for model in registry.models] == ["sfumato-builtin", "alias"]
    assert {skipped.location for skipped in registry.skipped} == {"mixed", "outside.safetensors"}


def test_a_models_folder_that_is_not_there_fails_the_scan(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match="models_dir"):
        scan(tmp_path, models_dir=tmp_path / "missing")


def test_a_hugging_face_id_becomes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_sd1_folder(tmp_path / "cache" / "snapshots" / "abc")
    asked: list[str] = []

    def fetch(hub_id: str, *_: object) -> Path:
        asked.append(hub_id)
        return folder

    monkeypatch.setattr(hub, "fetch", fetch)
    model = scan(tmp_path, "Owner/some-model").default
    assert asked == ["Owner/some-model"]
    assert (model.name, model.title, model.location) == ("some-model", "Owner/some-model", str(folder))


def test_a_hugging_face_id_without_a_network_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def offline(*args: object, **kwargs: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nlong story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelLoadFailed, match="could not be fetched from Hugging Face") as caught:
        scan(tmp_path, "owner/name")
    assert "\n" not in caught.value.message


def test_nothing_is_asked_of_the_hub_for_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "fetch", lambda hub_id, *_: pytest.fail(f"asked the hub for {hub_id}"))
    for text in ("/absolute/missing", "./owner/name", "../name", "owner/name.safetensors", "owner/name.ckpt", "name"):
        with pytest.raises(ModelLoadFailed):
            scan(tmp_path, text)


def names(registry: ModelRegistry) -> list[str]:
    return [model.name for model in registry.models[1:]]


@pytest.mark.parametrize("below", ["", "models"])
@pytest.mark.parametrize(("checkpoints", "vaes"), [("Stable-diffusion", "VAE"), ("checkpoints", "vae")])
def test_the_trees_of_other_programs_are_read_in_place(checkpoints: str, vaes: str, below: str, tmp_path: Path) -> None:
    root = tmp_path / "program"
    write_sd1_file(root / below / checkpoints / "sub" / "dream.safetensors")
    write_vae(root / below / vaes / "soft.safetensors")
    write_safetensors(root / below / "loras" / "style.safetensors", {"lora_unet_x": [1]})
    registry = scan(tmp_path, models_dir=root)
    assert (names(registry), [vae.name for vae in registry.vaes]) == (["sub_dream"], ["soft.safetensors"])
    assert registry.skipped == ()


def test_extra_model_paths_name_further_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sd1_file(tmp_path / "shelf" / "one" / "a.safetensors")
    write_sd1_file(tmp_path / "shelf" / "two" / "b.safetensors")
    write_vae(tmp_path / "shelf" / "v" / "soft.safetensors")
    monkeypatch.setenv("SHELF", "shelf")
    file = tmp_path / "extra_model_paths.yaml"
    file.write_text(
        "comfyui:\n  base_path: $SHELF\n  is_default: true\n  checkpoints: |\n    one\n    two\n    missing\n"
        "  vae: v\n  text_encoders: t\nother: null\n"
    )
    registry = scan(tmp_path, extra_model_paths=file)
    assert (names(registry), [vae.name for vae in registry.vaes]) == (["a", "b"], ["soft.safetensors"])


@pytest.mark.parametrize("text", ["a: [", "- x", "!!python/object/apply:os.system ['true']", "\0"])
def test_extra_model_paths_that_make_no_sense_fail_the_scan(text: str, tmp_path: Path) -> None:
    (tmp_path / "paths.yaml").write_text(text)
    with pytest.raises(ModelLoadFailed, match="extra_model_paths"):
        scan(tmp_path, extra_model_paths=tmp_path / "paths.yaml")


def test_the_hubs_cache_is_read_in_place_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("dream", "text-model"):
        repository = tmp_path / "hub" / f"models--owner--{name}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("abc")
        (repository / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "hub" / "models--owner--dream" / "snapshots" / "abc").rmdir()
    write_sd1_folder(tmp_path / "hub" / "models--owner--dream" / "snapshots" / "abc")
    assert names(scan(tmp_path)) == []
    (model,) = scan(tmp_path, scan_hub_cache=True).models[1:]
    assert (model.name, model.title) == ("dream", "owner/dream")


def test_a_vae_beside_checkpoints_is_no_checkpoint(tmp_path: Path) -> None:
    write_sd1_file(tmp_path / "models" / "dream.safetensors")
    write_vae(tmp_path / "models" / "dream.vae.safetensors")
    registry = scan(tmp_path, models_dir=tmp_path / "models")
    assert (names(registry), [vae.name for vae in registry.vaes]) == (["dream"], ["dream.vae.safetensors"])


def test_what_is_no_vae_is_left_out_with_its_reason(tmp_path: Path) -> None:
    write_sd1_file(tmp_path / "models" / "checkpoints" / "m.safetensors")
    write_safetensors(tmp_path / "models" / "vae" / "odd.safetensors", {"a": [1]})
    (tmp_path / "models" / "vae" / "old.pt").write_bytes(b"")
    registry = scan(tmp_path, models_dir=tmp_path / "models")
    assert [skipped.location for skipped in registry.skipped] == ["odd.safetensors", "old.pt"]
    assert registry.vaes == ()


def test_a_vae_is_found_by_choice(tmp_path: Path) -> None:
    root = tmp_path / "models"
    write_sd1_file(root / "checkpoints" / "dream.safetensors")
    write_sd1_file(root / "checkpoints" / "plain.safetensors")
    write_vae(root / "vae" / "soft.safetensors", payload=b"soft")
    write_vae(root / "vae" / "dream.vae.safetensors")
    registry = scan(tmp_path, models_dir=root, compute_hashes=True)
    dream, plain = registry.models[1:]
    own, soft = registry.vaes
    assert registry.find_vae("Automatic", dream) is own
    assert registry.find_vae("automatic", plain) is None
    assert registry.find_vae("None", dream) is None
    assert soft.short_hash is not None
    for word in ("soft.safetensors", "SOFT", soft.short_hash):
        assert registry.find_vae(word, dream) is soft
    with pytest.raises(UnknownModel, match="no VAE named 'hard'") as caught:
        registry.find_vae("hard", dream)
    assert "soft.safetensors" in caught.value.hint


def test_a_refresh_finds_what_is_new_and_forgets_what_is_gone(tmp_path: Path) -> None:
    old = write_sd1_file(tmp_path / "models" / "old.safetensors")
    registry = scan(tmp_path, models_dir=tmp_path / "models")
    old.unlink()
    write_sd1_file(tmp_path / "models" / "new.safetensors")
    registry.adopt(registry.rescanned())
    assert names(registry) == ["new"]
    assert registry.find("new").name == "new"
    with pytest.raises(UnknownModel):
        registry.find("old")
