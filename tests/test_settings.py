"""Settings: where values come from, which of two wins, and what a wrong one is answered with."""

from pathlib import Path

import pytest

from sfumato.core.errors import InvalidRequest
from sfumato.settings import Settings


@pytest.fixture(autouse=True)
def _in_an_empty_folder_without_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.startswith("SFUMATO_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write_file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_need_nothing_from_outside() -> None:
    settings = Settings.load()
    assert (settings.host, settings.port, settings.device, settings.model) == ("127.0.0.1", 8000, "auto", ())


def test_the_default_urls_lie_in_the_data_folder(tmp_path: Path) -> None:
    settings = Settings.load(data_dir=tmp_path / "here")
    assert settings.database_url == f"sqlite+aiosqlite:///{tmp_path}/here/sfumato.db"
    assert settings.objects_url == f"file://{tmp_path}/here/objects"


def test_the_default_urls_are_absolute_also_for_a_relative_data_folder(tmp_path: Path) -> None:
    assert Settings.load(data_dir="x").database_url == f"sqlite+aiosqlite:///{tmp_path}/x/sfumato.db"


def test_a_file_in_the_data_folder_beats_the_defaults(tmp_path: Path) -> None:
    write_file(tmp_path / "d" / "sfumato.toml", "port = 9001")
    assert Settings.load(data_dir=tmp_path / "d").port == 9001


def test_the_data_folder_whose_file_is_read_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "d" / "sfumato.toml", "port = 9001")
    monkeypatch.setenv("SFUMATO_DATA_DIR", str(tmp_path / "d"))
    assert Settings.load().port == 9001


def test_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "data" / "sfumato.toml", 'port = 9001\nhost = "::1"')
    monkeypatch.setenv("SFUMATO_PORT", "9002")
    settings = Settings.load()
    assert (settings.port, settings.host) == (9002, "::1")


def test_a_flag_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_PORT", "9002")
    assert Settings.load(port=9003).port == 9003


def test_a_flag_of_none_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_PORT", "9002")
    assert Settings.load(port=None).port == 9002


def test_a_named_file_is_read_instead_of_the_data_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "data" / "sfumato.toml", "port = 9001")
    monkeypatch.setenv("SFUMATO_CONFIG", str(write_file(tmp_path / "other.toml", "max_queued_jobs = 7")))
    settings = Settings.load()
    assert (settings.port, settings.max_queued_jobs) == (8000, 7)


@pytest.mark.parametrize("text", ["a.safetensors, owner/name", '["a.safetensors", "owner/name"]'])
def test_several_models_come_from_one_variable(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_MODEL", text)
    assert Settings.load().model == ("a.safetensors", "owner/name")


def test_a_public_url_loses_its_final_slash() -> None:
    assert Settings.load(public_url="https://pictures.example/s/").public_url == "https://pictures.example/s"


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ({"port": 70_000}, "port"),
        ({"port": "many"}, "port"),
        ({"device": "tpu"}, "device"),
        ({"public_url": "pictures.example"}, "public_url"),
        ({"generation_timeout_seconds": float("nan")}, "generation_timeout_seconds"),
        ({"max_queued_jobs": 0}, "max_queued_jobs"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_value_is_refused_by_name(flags: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Settings.load(**flags)
    assert caught.value.field == field
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("port = ", "is not TOML"),
        ("prot = 1", "no setting named 'prot'"),
        ('config = "x"', "cannot name another"),
        ("port = 70000", "Setting port"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(text: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=part):
        Settings.load(config=write_file(tmp_path / "s.toml", text))


def test_a_named_file_that_is_missing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        Settings.load(config="missing.toml")


def test_passwords_are_not_shown() -> None:
    secret = "hunter2"
    settings = Settings.load(
        database_url=f"postgresql+psycopg://u:{secret}@h/d", objects_url=f"s3://bucket?secret={secret}"
    )
    assert secret not in f"{settings!r} {settings}"


def test_an_error_does_not_quote_the_value() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Settings.load(port="hunter2", database_url=["hunter2"])
    assert "hunter2" not in caught.value.message


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError):
        Settings.load().port = 1
