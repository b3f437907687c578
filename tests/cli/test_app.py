"""The command line as a whole."""

import subprocess
import sys

import pytest

from sfumato import __version__
from sfumato.settings import Settings
from tests.cli.command import run


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "--version")
    assert (result.code, result.out) == (0, f"sfumato {__version__}\n")


@pytest.mark.parametrize("arguments", [("nothing",), ("users", "nothing"), ("--nothing",)])
def test_an_unknown_command_or_option_ends_with_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(capsys, *arguments)
    assert (result.code, result.out) == (2, "")


@pytest.mark.parametrize("command", ["serve", "generate", "models", "keys", "users"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, command, "--help")
    assert result.code == 0
    assert "Usage" in result.out


def test_serve_runs_with_the_settings_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sfumato.api.serve

    served: list[Settings] = []
    monkeypatch.setattr(sfumato.api.serve, "run", served.append)
    flags = ("--host", "0.0.0.0", "--port", 9000, "--data", "d", "--model", "a", "--model", "b", "--log-format", "json")
    assert run(capsys, "serve", *flags).code == 0
    settings = served[0]
    assert (settings.host, settings.port, settings.data_dir.name) == ("0.0.0.0", 9000, "d")
    assert (settings.model, settings.log_format, settings.max_queued_jobs) == (("a", "b"), "json", 1000)


@pytest.mark.parametrize(
    "flags", [("--port", "70000"), ("--port", "x"), ("--log-level", "loud"), ("--config", "missing.toml")]
)
def test_serve_with_a_wrong_setting_ends_with_2(flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "serve", *flags)
    assert (result.code, result.out) == (2, "")


def test_a_fault_inside_keeps_its_traceback_only_for_debugging(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sfumato.api.serve
    from sfumato.cli import main

    def fail(settings: Settings) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(sfumato.api.serve, "run", fail)
    result = run(capsys, "serve")
    assert (result.code, result.err.count("\n")) == (1, 1)
    monkeypatch.setenv("SFUMATO_LOG_LEVEL", "debug")
    with pytest.raises(ZeroDivisionError):
        main(["serve"])


def test_no_command_imports_torch_or_the_web_application_to_start() -> None:
    code = (
        "import sys; import sfumato.cli; "
        "heavy = {'torch', 'diffusers', 'transformers', 'fastapi', 'uvicorn', 'huggingface_hub'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
