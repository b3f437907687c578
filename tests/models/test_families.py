"""Telling a family from headers and JSON, and refusing what is damaged, dangerous or unknown."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfumato.core.errors import ModelLoadFailed
from sfumato.core.models import Family
from sfumato.models.families import family_of_file, family_of_folder, recommended_by_name, side_of_folder
from tests.models.model_files import sd1_shapes, shapes, write_safetensors, write_sd1_file, write_sd1_folder


def test_a_stable_diffusion_1_file_is_known(tmp_path: Path) -> None:
    assert family_of_file(write_sd1_file(tmp_path / "m.safetensors")) is Family.SD1


def test_a_stable_diffusion_1_folder_is_known(tmp_path: Path) -> None:
    assert family_of_folder(write_sd1_folder(tmp_path / "m")) is Family.SD1


@pytest.mark.parametrize(
    ("towers", "family"),
    [
        (("cond_stage_model.model.ln_final.weight",), Family.SD2),
        (("conditioner.embedders.0.transformer.text_model.x", "conditioner.embedders.1.model.ln_final.x"), Family.SDXL),
        (("conditioner.embedders.0.model.ln_final.weight",), Family.SDXL_REFINER),
    ],
    ids=["sd2", "sdxl", "refiner"],
)
@pytest.mark.parametrize("channels", [4, 9])
def test_a_files_family_shows_in_its_text_encoders(
    towers: tuple[str, ...], family: Family, channels: int, tmp_path: Path
) -> None:
    path = write_safetensors(tmp_path / "m.safetensors", shapes(*towers, channels=channels))
    assert family_of_file(path) is family


@pytest.mark.parametrize(
    ("encoders", "width", "family"),
    [
        (("text_encoder",), 1024, Family.SD2),
        (("text_encoder", "text_encoder_2"), 2048, Family.SDXL),
        (("text_encoder_2",), 1280, Family.SDXL_REFINER),
    ],
    ids=["sd2", "sdxl", "refiner"],
)
def test_a_folders_family_shows_in_its_text_encoders(
    encoders: tuple[str, ...], width: int, family: Family, tmp_path: Path
) -> None:
    folder = write_sd1_folder(tmp_path / "m", encoders=encoders, cross_attention_dim=width)
    assert family_of_folder(folder) is family


@pytest.mark.parametrize(("cells", "side"), [(96, 768), (None, 512), (10**9, 512)])
def test_a_folder_tells_the_size_it_was_trained_at(cells: int | None, side: int, tmp_path: Path) -> None:
    assert side_of_folder(write_sd1_folder(tmp_path / "m", sample_size=cells), Family.SD1) == side


def test_a_smaller_network_of_the_same_architecture_is_known(tmp_path: Path) -> None:
    assert family_of_file(write_safetensors(tmp_path / "m.safetensors", sd1_shapes(width=32))) is Family.SD1
    assert family_of_folder(write_sd1_folder(tmp_path / "m", cross_attention_dim=32)) is Family.SD1


def test_a_copy_of_the_built_in_model_is_known_by_its_text_encoder(tmp_path: Path) -> None:
    folder = write_sd1_folder(tmp_path / "m", in_channels=16)
    index = (folder / "model_index.json").read_text()
    (folder / "model_index.json").write_text(index.replace("CLIPTextModel", "BertModel"))
    assert family_of_folder(folder) is Family.BUILTIN


@pytest.mark.parametrize("name", ["m.ckpt", "m.pt", "m.pth", "m.bin", "M.CKPT", "m.pkl"])
def test_a_pickle_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"anything")
    with pytest.raises(ModelLoadFailed, match="is a pickle") as caught:
        family_of_file(path)
    assert ".safetensors" in caught.value.hint


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02}q"])
def test_a_pickle_under_another_name_is_refused(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(start + bytes(100))
    with pytest.raises(ModelLoadFailed, match="pickle under another name"):
        family_of_file(path)


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (sd1_shapes(channels=8), "editing"),
        ({"decoder.conv_in.weight": [512, 4, 3, 3]}, "is a VAE"),
        ({"some.weight": [1]}, "does not know"),
        ({"lora_unet_down_blocks_0.lora_up.weight": [4, 4]}, "is a LoRA"),
        ({k: v for k, v in sd1_shapes().items() if not k.startswith("first_stage")}, "no VAE"),
        ({k: v for k, v in sd1_shapes().items() if not k.startswith("cond_stage")}, "no text encoder"),
        ({k: [1] for k in sd1_shapes()}, "does not know"),
    ],
)
def test_other_files_are_refused_with_what_they_are(found: dict[str, list[int]], what: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=what):
        family_of_file(write_safetensors(tmp_path / "m.safetensors", found))


def framed(body: bytes) -> bytes:
    return struct.pack("<Q", len(body)) + body


DAMAGED = {
    "empty": b"",
    "short": b"\1\0\0",
    "no header": struct.pack("<Q", 0),
    "length past the end": struct.pack("<Q", 1000) + b"{}",
    "absurd length": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": framed(b"{nonsense"),
    "no object": framed(b"[1, 2]"),
    "no tensors": framed(b"{}"),
    "only metadata": framed(b'{"__metadata__": {}}'),
    "wrong entry": framed(b'{"a": 3}'),
    "missing offsets": framed(b'{"a": {"dtype": "F16", "shape": [1]}}'),
    "deep nesting": framed(b'{"a": ' + b"[" * 100_000),
    "not UTF-8": framed(b'{"\xff": 1}'),
    "weights cut off": framed(b'{"a": {"dtype": "F16", "shape": [9], "data_offsets": [0, 18]}}') + b"short",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelLoadFailed, match="cannot be read as a safetensors file"):
        family_of_file(path)


@given(data=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_at_all_are_more_than_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelLoadFailed):
        family_of_file(path)


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match="No such file"):
        family_of_file(tmp_path / "m.safetensors")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelLoadFailed, match=r"is no \.safetensors file"):
        family_of_file(tmp_path / "m.gguf")


def test_a_folder_with_pickled_weights_only_is_refused(tmp_path: Path) -> None:
    folder = write_sd1_folder(tmp_path / "m")
    (folder / "vae" / "model.safetensors").rename(folder / "vae" / "model.bin")
    with pytest.raises(ModelLoadFailed, match="vae has only pickled weights"):
        family_of_folder(folder)


@pytest.mark.parametrize("unet", [{"cross_attention_dim": [1]}, {"in_channels": 8}])
def test_a_folder_of_another_family_is_refused(unet: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=r"does not know|editing"):
        family_of_folder(write_sd1_folder(tmp_path / "m", **unet))


def test_a_folder_with_a_damaged_part_is_refused(tmp_path: Path) -> None:
    folder = write_sd1_folder(tmp_path / "m")
    (folder / "unet" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelLoadFailed, match="cannot be read as a safetensors file"):
        family_of_folder(folder)


def test_a_folder_without_a_part_is_refused(tmp_path: Path) -> None:
    folder = write_sd1_folder(tmp_path / "m")
    index = json.loads((folder / "model_index.json").read_text())
    del index["text_encoder"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadFailed, match="no text_encoder"):
        family_of_folder(folder)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, " " * 1_000_001])
def test_a_folder_with_a_damaged_index_is_refused(text: str, tmp_path: Path) -> None:
    folder = write_sd1_folder(tmp_path / "m")
    (folder / "model_index.json").write_text(text)
    with pytest.raises(ModelLoadFailed, match=r"model_index\.json"):
        family_of_folder(folder)


@pytest.mark.parametrize(
    ("name", "recommended"),
    [
        ("v1-5-pruned-emaonly", (20, 7.0)),
        ("DreamShaperXL_Turbo_v2", (4, 1.0)),
        ("sdxl_lightning_8step", (8, 1.0)),
        ("LCM_Dreamshaper_v7", (6, 1.5)),
        ("calcmodel", (20, 7.0)),
    ],
)
def test_models_distilled_to_few_steps_are_known_by_their_names(name: str, recommended: tuple[int, float]) -> None:
    assert recommended_by_name(name) == recommended
