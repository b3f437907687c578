"""`sfumato generate`: what is asked of the engine, what is written and printed, and how failures end."""

import io
import signal
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin
from rich.console import Console

from sfumato import __version__
from sfumato.core.errors import OutOfMemory
from sfumato.core.messages import Canceled, Finished, Generate, Started
from sfumato.storage import infotext
from tests.cli.command import Script, ScriptedHost, run, use_host
from tests.fakes import colour_of
from tests.models.model_files import write_sd1_file


def read(path: Path) -> tuple[tuple[int, int], tuple[int, ...], dict[str, str]]:
    with Image.open(path) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        pixel = image.getpixel((0, 0))
        assert isinstance(pixel, tuple)
        return image.size, pixel, infotext.parse(str(image.text["parameters"]))


def last_picture_first(host: ScriptedHost, job: Generate) -> None:
    for index in reversed(range(job.request.image_count)):
        host.image(job, index)
    host.emit(Finished(job_id=job.job_id, notes=("A note.",)))


def test_a_picture_is_written_that_says_how_it_was_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_host(monkeypatch)
    arguments = ("--seed", 7, "--steps", 3, "--sampler", "euler a", "--width", 64, "--height", 72, "--guidance", 5)
    result = run(capsys, "generate", "a red apple", "-o", "apple.png", "--negative", "blue", *arguments)
    assert (result.code, result.out) == (0, "apple.png  64x72, seed 7\n")
    size, pixel, fields = read(tmp_path / "apple.png")
    assert (size, pixel) == ((64, 72), tuple(colour_of(7)))
    expected = {
        "Prompt": "a red apple",
        "Negative prompt": "blue",
        "Seed": "7",
        "Steps": "3",
        "Sampler": "Euler a",
        "CFG scale": "5.0",
        "Model": "sfumato-builtin",
        "Version": f"sfumato {__version__}",
    }
    assert {key: fields[key] for key in expected} == expected


def test_the_engine_gets_the_model_and_the_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = use_host(monkeypatch)
    run(capsys, "generate", "a cat", "--schedule", "karras", "--count", 2, "--steps", 1)
    assert (host.loaded.name, host.loaded.family) == ("sfumato-builtin", "builtin")
    request = host.asked.request
    assert (request.prompt, request.schedule, request.image_count) == ("a cat", "karras", 2)
    assert (request.width, request.height, request.guidance_scale) == (256, 256, 7.0)
    assert host.stops == 1


def test_several_pictures_get_numbers_and_seeds_in_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_host(monkeypatch, last_picture_first)
    result = run(capsys, "generate", "x", "-o", "many.png", "--count", 3, "--seed", 10, "--steps", 1)
    assert [line.split()[0] for line in result.out.splitlines()] == ["many-1.png", "many-2.png", "many-3.png"]
    for index in range(3):
        _, pixel, fields = read(tmp_path / f"many-{index + 1}.png")
        assert (pixel, fields["Seed"]) == (tuple(colour_of(10 + index)), str(10 + index))


def test_json_is_all_there_is_on_standard_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_host(monkeypatch, last_picture_first)
    result = run(capsys, "generate", "x", "-o", "a.png", "--seed", 4, "--steps", 1, "--json")
    assert result.json["pictures"] == [{"file": "a.png", "index": 0, "seed": 4, "width": 256, "height": 256}]
    assert (result.json["model"], result.json["notes"]) == ("sfumato-builtin", ["A note."])
    assert result.err == "A note.\n"


def test_without_a_name_the_file_is_called_after_a_random_seed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seeds = set()
    for _ in range(2):
        use_host(monkeypatch)
        picture = run(capsys, "generate", "x", "--steps", 1, "--json").json["pictures"][0]
        assert picture["file"] == f"sfumato-{picture['seed']}.png"
        assert (tmp_path / picture["file"]).is_file()
        seeds.add(picture["seed"])
    assert len(seeds) == 2


def test_a_name_without_an_ending_gets_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_host(monkeypatch)
    run(capsys, "generate", "x", "-o", "apple", "--steps", 1)
    assert sorted(path.name for path in tmp_path.glob("apple*")) == ["apple.png"]


def test_an_old_picture_is_replaced_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    use_host(monkeypatch)
    assert run(capsys, "generate", "x", "-o", "a.png", "--steps", 1).code == 0
    assert read(tmp_path / "a.png")[0] == (256, 256)


@pytest.mark.parametrize("by", ["path", "name"])
def test_a_model_is_named_by_its_file_or_by_its_name(
    by: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_sd1_file(tmp_path / "models" / "dream.safetensors")
    monkeypatch.setenv("SFUMATO_MODELS_DIR", str(tmp_path / "models"))
    host = use_host(monkeypatch)
    result = run(capsys, "generate", "x", "--steps", 1, "--model", path if by == "path" else "Dream", "--json")
    assert (result.json["model"], host.loaded.location) == ("dream", str(path))
    assert host.asked.request.width == 512


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--steps", "0"), "steps must be between 1 and 150"),
        (("--steps", "many"), "--steps"),
        (("--width", "65"), "multiple of 8"),
        (("--guidance", "nan"), "guidance_scale must be between"),
        (("--seed", "-1"), "seed must be between"),
        (("--count", "65"), "image_count must be between"),
        (("--sampler", "Eular"), "no sampler named 'Eular'. One of: DPM++ 2M"),
        (("--schedule", "none"), "no schedule named"),
        (("--model", "nothing"), "no model named 'nothing'"),
        (("-o", "a.jpg"), "written as PNG"),
        (("-o", "missing/a.png"), "no folder missing"),
        (("-o", "."), "is a folder"),
        (("--device", "tpu"), "Setting device"),
        (("--config", "missing.toml"), "cannot be read"),
        (("--colour", "red"), "--colour"),
        (("--negative", "\udcff"), "not valid UTF-8"),
    ],
)
def test_what_is_asked_wrongly_ends_with_2_before_an_engine_starts(
    arguments: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    host = use_host(monkeypatch)
    result = run(capsys, "generate", "x", *arguments)
    assert (result.code, result.out, host.sent) == (2, "", [])
    assert words in result.err
    assert list(tmp_path.glob("*.png")) == []


def test_an_unfit_model_ends_with_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    use_host(monkeypatch)
    result = run(capsys, "generate", "x", "--model", "old/model.ckpt")
    assert result.code == 1
    assert result.err.startswith("sfumato: model.ckpt is a pickle")
    assert result.err.count("\n") == 1


def failing(host: ScriptedHost, job: Generate) -> None:
    host.emit(Started(job_id=job.job_id))
    host.fail(job, OutOfMemory.code, "Too large\nfor this device.")


def dying(host: ScriptedHost, job: Generate) -> None:
    host.emit(Started(job_id=job.job_id))
    host.die()


def canceling(host: ScriptedHost, job: Generate) -> None:
    host.emit(Canceled(job_id=job.job_id))


def breaking(host: ScriptedHost, job: Generate) -> None:
    raise RuntimeError("a fault\nof two lines")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (failing, "Too large for this device."),
        (dying, "engine process ended"),
        (canceling, "dropped the job"),
        (breaking, "Something went wrong inside (RuntimeError: a fault)"),
    ],
)
def test_a_failure_of_the_engine_is_one_line_and_1(
    script: Script, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = use_host(monkeypatch, script)
    result = run(capsys, "generate", "x", "-o", "a.png", "--steps", 1, "--json")
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert words in result.err
    assert host.stops == 1


def test_an_engine_that_cannot_be_started_is_one_line_and_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_host(monkeypatch).start_error = FileNotFoundError(2, "No such file or directory")
    result = run(capsys, "generate", "x", "--steps", 1)
    assert (result.code, result.err) == (1, "sfumato: The engine cannot be started: No such file or directory.\n")


def test_a_folder_that_takes_no_file_is_one_line_and_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    use_host(monkeypatch)
    result = run(capsys, "generate", "x", "-o", "a.png", "--steps", 1)
    assert (result.code, result.err) == (1, "sfumato: a.png cannot be written: No space left on device.\n")


def test_ctrl_c_ends_the_engine_and_the_command_with_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupting(host: ScriptedHost, job: Generate) -> None:
        host.emit(Started(job_id=job.job_id))
        signal.raise_signal(signal.SIGINT)

    host = use_host(monkeypatch, interrupting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin ignoring it
    try:
        result = run(capsys, "generate", "x", "-o", "a.png", "--steps", 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.code, result.out, result.err) == (130, "", "")
    assert host.stops == 1
    assert list(tmp_path.glob("*.png*")) == []


def test_a_terminal_sees_the_steps_of_all_pictures_go_by(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr("sfumato.cli.drawing.progress_console", lambda: console)
    use_host(monkeypatch)
    result = run(capsys, "generate", "x", "--count", 2, "--steps", 3, "-o", "a.png")
    assert "6/6" in screen.getvalue()
    assert "Drawing" in screen.getvalue()
    assert result.out.count("\n") == 2
