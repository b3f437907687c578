"""Running the command line within the test's process, with an engine that does what a test says."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sfumato.cli import main
from sfumato.core.messages import Generate, LoadModel, ToEngine
from sfumato.settings import Settings
from tests.fakes import FakeHost


@dataclass(frozen=True, kw_only=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    """Run `sfumato ARGUMENTS` and return what it printed and its exit code."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return Result(code=int(ended.value.code or 0), out=printed.out, err=printed.err)


class ScriptedHost(FakeHost):
    """A fake host that answers a job by `script`, or as `FakeHost` does when there is none."""

    def __init__(self, script: "Script | None") -> None:
        super().__init__(automatic=script is None)
        self.stops = 0
        self._script = script

    def send(self, message: ToEngine) -> None:
        super().send(message)
        if self._script is not None and isinstance(message, Generate):
            self._script(self, message)

    async def stop(self) -> None:
        self.stops += 1
        await super().stop()

    @property
    def loaded(self) -> LoadModel:
        return next(message for message in self.sent if isinstance(message, LoadModel))

    @property
    def asked(self) -> Generate:
        return next(message for message in self.sent if isinstance(message, Generate))


Script = Callable[[ScriptedHost, Generate], None]


def use_host(monkeypatch: pytest.MonkeyPatch, script: Script | None = None) -> ScriptedHost:
    """Give the command a scripted host in place of an engine process."""
    host = ScriptedHost(script)

    def make(settings: Settings) -> ScriptedHost:
        return host

    monkeypatch.setattr("sfumato.cli.drawing.LocalHost", make)
    return host
