"""The engine process, spoken to over its pipes as the server does."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sfumato.core import messages
from sfumato.core.requests import AddOn, GenerationRequest, PromptSyntax
from tests.engine import tiny


class EngineProcess:
    """A running engine and the frames to and from it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sfumato.engine.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def send(self, message: messages.ToEngine) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(messages.encode_frame(message))
        self._process.stdin.flush()

    def receive(self) -> messages.FromEngine:
        assert self._process.stdout is not None
        body = messages.read_frame(self._process.stdout)
        assert body is not None, "the engine went away"
        return messages.from_engine_decoder.decode(body)

    def until(self, job_id: str, *kinds: type) -> list[messages.FromEngine]:
        """Read this job's messages up to and including the first of these kinds."""
        seen = []
        while True:
            message = self.receive()
            if getattr(message, "job_id", None) == job_id:
                seen.append(message)
                if isinstance(message, kinds):
                    return seen

    def close(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        code = self._process.wait(timeout=60)
        self._process.stdout.close()
        return code


ENDS = (messages.Finished, messages.Failed, messages.Canceled)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder: Path = tiny.write_folder(tmp_path_factory.mktemp("tiny"))
    process = EngineProcess()
    assert isinstance(process.receive(), messages.Ready)
    process.send(messages.LoadModel(name="tiny", family="sd1", location=str(folder)))
    damaged = folder.parent / "damaged.safetensors"
    damaged.write_bytes(bytes(100))
    process.send(messages.LoadModel(name="damaged", family="sd1", location=str(damaged), preload=True))
    process.send(messages.LoadModel(name="absent", family="sd1", location=str(folder / "absent")))
    yield process
    assert process.close() == 0


def generate(engine: EngineProcess, job_id: str, **choices: object) -> None:
    settings = {"prompt": "x", "model": "tiny", "width": 64, "height": 64, "steps": 3} | choices
    engine.send(messages.Generate(job_id=job_id, request=GenerationRequest(**settings)))  # type: ignore[arg-type]


def test_a_job_reports_its_start_every_step_its_pictures_and_its_end(engine: EngineProcess) -> None:
    generate(engine, "a", steps=3, image_count=2, width=64, height=72)
    seen = engine.until("a", *ENDS)
    assert isinstance(seen[0], messages.Started)
    steps = [(m.index, m.step) for m in seen if isinstance(m, messages.Step)]
    assert sorted(steps) == [(index, step) for index in range(2) for step in (1, 2, 3)]
    pictures = {m.index: m for m in seen if isinstance(m, messages.ImageReady)}
    assert sorted(pictures) == [0, 1]
    assert (pictures[0].width, pictures[0].height, len(pictures[0].pixels)) == (64, 72, 64 * 72 * 3)
    assert pictures[0].pixels != pictures[1].pixels
    assert isinstance(seen[-1], messages.Finished)
    assert seen[-1].denoise_seconds > 0


def test_the_same_request_gives_the_same_pixels(engine: EngineProcess) -> None:
    pixels = []
    for job_id in ("b1", "b2"):
        generate(engine, job_id, seed=3)
        pixels += [m.pixels for m in engine.until(job_id, *ENDS) if isinstance(m, messages.ImageReady)]
    assert pixels[0] == pixels[1]


def test_a_cancelled_job_ends_and_makes_no_picture(engine: EngineProcess) -> None:
    generate(engine, "c", steps=150, width=256, height=256)
    engine.until("c", messages.Step)
    engine.send(messages.Cancel(job_id="c"))
    seen = engine.until("c", *ENDS)
    assert isinstance(seen[-1], messages.Canceled)
    assert not any(isinstance(m, messages.ImageReady) for m in seen)


def test_an_interrupted_job_hands_over_what_it_has(engine: EngineProcess) -> None:
    generate(engine, "d", steps=150, width=256, height=256)
    engine.until("d", messages.Step)
    engine.send(messages.Cancel(job_id="d", keep_partial=True))
    seen = engine.until("d", *ENDS)
    (picture,) = [m for m in seen if isinstance(m, messages.ImageReady)]
    assert picture.is_partial
    assert isinstance(seen[-1], messages.Finished)


def test_one_jobs_failure_is_its_own(engine: EngineProcess) -> None:
    generate(engine, "e1", model="absent")
    generate(engine, "e2")
    generate(engine, "e3", model="never heard of")
    generate(engine, "e4", model="damaged")
    ended = {}
    while len(ended) < 4:
        message = engine.receive()
        if isinstance(message, ENDS):
            ended[message.job_id] = message
    assert isinstance(ended["e2"], messages.Finished)
    codes = [getattr(ended[job], "code", None) for job in ("e1", "e3", "e4")]
    assert codes == ["model_load_failed", "unknown_model", "model_load_failed"]


def test_loras_that_cannot_be_used_fail_their_own_job_with_the_reason(engine: EngineProcess, tmp_path: Path) -> None:
    stem = "lora_unet_down_blocks_0_attentions_0_proj_in"
    wide = {f"{stem}.lora_down.weight": torch.zeros(4, 2048), f"{stem}.lora_up.weight": torch.zeros(32, 4)}
    save_file(wide, tmp_path / "wide.safetensors")
    torch.save(wide, tmp_path / "pickled.safetensors")
    for name in ("wide", "pickled"):
        generate_with_lora(engine, name, tmp_path / f"{name}.safetensors")
        failed = engine.until(name, *ENDS)[-1]
        assert isinstance(failed, messages.Failed)
        assert failed.code == "unusable_add_on"
        assert f"The LoRA {name}" in failed.message
    generate(engine, "after")
    assert isinstance(engine.until("after", *ENDS)[-1], messages.Finished)


def test_notes_about_prompts_come_with_the_end(engine: EngineProcess) -> None:
    generate(engine, "n", prompt="a [cat:dog:soon]", prompt_syntax=PromptSyntax.A1111)
    ended = engine.until("n", *ENDS)[-1]
    assert isinstance(ended, messages.Finished)
    assert ended.notes == ("The brackets at character 3 of the prompt fit no rule; they are text.",)


def generate_with_lora(engine: EngineProcess, name: str, path: Path) -> None:
    request = GenerationRequest(
        prompt=f"x<lora:{name}:1>",
        prompt_syntax=PromptSyntax.A1111,
        adapters=(AddOn(word=name, name=name, short_hash="0" * 12),),
        model="tiny",
        width=64,
        height=64,
        steps=2,
    )
    engine.send(messages.Generate(job_id=name, request=request, adapters={name: str(path)}))


def test_messages_for_unknown_jobs_are_ignored(engine: EngineProcess) -> None:
    engine.send(messages.Cancel(job_id="nobody"))
    generate(engine, "f")
    assert isinstance(engine.until("f", *ENDS)[-1], messages.Finished)
