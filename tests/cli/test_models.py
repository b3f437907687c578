"""`sfumato models list`."""

from pathlib import Path

import pytest

from tests.cli.command import run
from tests.models.model_files import write_safetensors, write_sd1_file


def test_the_built_in_model_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "models", "list")
    assert result.code == 0
    assert "sfumato-builtin" in result.out
    assert "256x256" in result.out


def test_json_tells_every_model_and_what_cannot_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_sd1_file(tmp_path / "m" / "good.safetensors")
    write_safetensors(tmp_path / "m" / "odd.safetensors", {"a": [1]})
    found = run(capsys, "models", "list", "--models-dir", tmp_path / "m", "--json").json
    assert [(model["name"], model["is_default"]) for model in found["models"]] == [
        ("sfumato-builtin", True),
        ("good", False),
    ]
    assert len(found["models"][1]["sha256"]) == 64
    assert [skipped["location"] for skipped in found["skipped"]] == ["odd.safetensors"]


def test_what_cannot_be_used_is_noted_beside_the_list(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "old.ckpt").write_bytes(b"")
    result = run(capsys, "models", "list", "--models-dir", tmp_path / "m")
    assert "old.ckpt" not in result.out
    assert "not usable: old.ckpt" in result.err


def test_a_name_in_square_brackets_is_shown_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_sd1_file(tmp_path / "[bold]red[/bold].safetensors")
    assert "[bold]red[/bold]" in run(capsys, "models", "list", "--model", path).out
