"""The engine process: reads messages, drives the denoise loop, reports events.

Four threads, each with one duty, so that a step never waits for anything else: the reader takes messages off the
pipe; the preparer loads models and encodes prompts; the main thread turns the denoise loop; the finisher decodes
latents. Run as `python -m sfumato.engine.worker`, with frames of `core.messages` on standard input and output.
"""

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.core import messages
from sfumato.core.errors import GenerationFailed, OutOfMemory, SfumatoError
from sfumato.core.requests import GenerationRequest
from sfumato.engine.addons import AddOnFiles, AddOns
from sfumato.engine.denoising import DenoiseLoop, LivePicture, Turn
from sfumato.engine.device import Device, is_out_of_memory
from sfumato.engine.families.base import LoadedModel
from sfumato.engine.families.loading import load_model, load_vae
from sfumato.engine.memory import WarmModels
from sfumato.engine.pipeline import prepare

logger = logging.getLogger(__name__)

MODEL_MEMORY_SHARE = 0.6
"""Share of the device's memory that warm models may take; the rest is for activations."""

Send = Callable[[messages.FromEngine], None]


@dataclass
class LiveJob:
    """A job in the engine: its request, what is still to come of it, and the seconds spent on it."""

    request: GenerationRequest
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    vae_location: str = ""
    add_ons: AddOns = field(default_factory=AddOns)
    model: LoadedModel | None = None
    pictures_left: int = 0
    encode_seconds: float = 0.0
    decode_seconds: float = 0.0
    started_at: float | None = None
    denoise_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    is_over: bool = False

    def note(self, sentence: str) -> None:
        """Keep a sentence for the user, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)


class Engine:
    """The jobs of one device, from message in to events out."""

    def __init__(self, device: Device, send: Send) -> None:
        self._send = send
        self._loop = DenoiseLoop()
        self._add_on_files = AddOnFiles()
        self._jobs: dict[str, LiveJob] = {}
        self._lock = threading.Lock()
        self._models = WarmModels(
            lambda name, location: load_model(name, location, device),
            lambda location, codec: load_vae(location, codec, device),
            budget_bytes=int(device.memory_total_bytes * MODEL_MEMORY_SHARE),
            on_loaded=lambda name, seconds: send(messages.ModelLoaded(name=name, seconds=seconds)),
        )
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._prepare: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._finish: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def run(self) -> None:
        """Turn the denoise loop for as long as the process lives."""
        for name, work in (("preparer", self._prepare), ("finisher", self._finish)):
            _start_thread(name, partial(_work_through, work))
        while True:
            if not len(self._loop):
                self._inbox.get()()
            while not self._inbox.empty():
                self._inbox.get()()
            turn = self._loop.turn()
            if turn is not None:
                self._report(turn)

    def receive(self, message: messages.ToEngine) -> None:
        """Take a message off the pipe; called by the reader's thread."""
        match message:
            case messages.LoadModel(name=name, location=location, preload=preload):
                self._models.register(name, location)
                if preload:
                    self._prepare.put(partial(self._preload, name))
            case messages.Generate(job_id=job_id):
                add_ons = AddOns(self._add_on_files, message.adapters, message.embeddings)
                with self._lock:
                    self._jobs[job_id] = LiveJob(message.request, message.pictures, message.vae_location, add_ons)
                self._prepare.put(partial(self._begin, job_id))
            case messages.Cancel(job_id=job_id, keep_partial=keep_partial):
                self._inbox.put(partial(self._cancel, job_id, keep_partial))

    def _preload(self, name: str) -> None:
        try:
            self._models.get(name)
        except Exception as error:  # the first job that needs the model is told
            logger.warning("cannot load %s: %s", name, as_sfumato_error(error).message)

    def _begin(self, job_id: str) -> None:
        """Load, encode and hand the job's pictures to the loop; runs on the preparer."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        try:
            job.model = self._models.get(job.request.model, job.vae_location)
            began = time.perf_counter()
            model_of = partial(self._models.get, vae_location=job.vae_location)
            pictures = prepare(job_id, job.request, model_of, job.pictures, job.note, job.add_ons)
            job.encode_seconds = time.perf_counter() - began
        except Exception as error:
            self._inbox.put(partial(self._fail, job_id, error))
        else:
            self._inbox.put(partial(self._join, job_id, pictures))

    def _join(self, job_id: str, pictures: list[LivePicture]) -> None:
        job = self._jobs.get(job_id)
        if job is None:  # canceled meanwhile
            return
        job.pictures_left = len(pictures)
        job.started_at = time.perf_counter()
        self._send(messages.Started(job_id=job_id))
        for picture in pictures:
            self._loop.add(picture)

    def _report(self, turn: Turn) -> None:
        for picture in turn.advanced:
            job = self._jobs.get(picture.job_id)
            if job is None:
                continue
            steps = job.request.steps
            step = messages.Step(job_id=picture.job_id, index=picture.index, step=picture.step_of(steps), steps=steps)
            self._send(step)
        for picture, latents in turn.ended:
            self._finish.put(partial(self._decode, picture, latents, is_partial=False))
        for picture, error in turn.failed:
            self._fail(picture.job_id, error)
        for picture in turn.errands:
            self._finish.put(partial(self._run_errand, picture))
        if not turn.rows:
            return
        self._send(
            messages.TurnStats(
                rows=turn.rows,
                images=turn.pictures,
                jobs=turn.jobs,
                seconds=turn.seconds,
                overhead_seconds=turn.seconds - turn.network_seconds,
            )
        )

    def _run_errand(self, picture: LivePicture) -> None:
        """Do what a picture needs between two passes; runs on the finisher."""
        if picture.job_id not in self._jobs or picture.errand is None:
            return
        try:
            result = picture.errand.run()
        except Exception as error:
            self._inbox.put(partial(self._fail, picture.job_id, error))
        else:
            self._inbox.put(partial(self._loop.resume, picture, result))

    def _cancel(self, job_id: str, keep_partial: bool) -> None:
        job = self._jobs.get(job_id)
        if job is None:
            return
        dropped = self._loop.drop(job_id)
        if not keep_partial:
            if self._close(job_id):
                self._send(messages.Canceled(job_id=job_id))
            return
        # Pictures already decoding still come; those without an estimate never will.
        with self._lock:
            job.pictures_left -= sum(picture.estimate is None for picture in dropped)
        for picture in dropped:
            if picture.estimate is not None:
                self._finish.put(partial(self._decode, picture, picture.estimate, is_partial=True))
        self._finish.put(partial(self._finish_if_done, job_id))

    def _decode(self, picture: LivePicture, latents: Tensor, *, is_partial: bool) -> None:
        """Turn latents into pixels and send them; runs on the finisher."""
        job = self._jobs.get(picture.job_id)
        if job is None or job.model is None:
            return
        began = time.perf_counter()
        if job.started_at is not None:
            job.denoise_seconds = began - job.started_at
        try:
            pixels = picture.codec.decode(latents.unsqueeze(0), job.note)[0]
            if picture.finish is not None:
                pixels = torch.from_numpy(np.array(picture.finish(Image.fromarray(pixels.numpy()))))
        except Exception as error:
            self._inbox.put(partial(self._fail, picture.job_id, error))
            return
        job.decode_seconds += time.perf_counter() - began
        self._send(
            messages.ImageReady(
                job_id=picture.job_id,
                index=picture.index,
                width=pixels.shape[1],
                height=pixels.shape[0],
                pixels=pixels.numpy().tobytes(),
                is_partial=is_partial,
            )
        )
        with self._lock:
            job.pictures_left -= 1
        self._finish_if_done(picture.job_id)

    def _finish_if_done(self, job_id: str) -> None:
        job = self._jobs.get(job_id)
        if job is None or job.pictures_left > 0 or not self._close(job_id):
            return
        self._send(
            messages.Finished(
                job_id=job_id,
                encode_seconds=job.encode_seconds,
                denoise_seconds=job.denoise_seconds,
                decode_seconds=job.decode_seconds,
                notes=tuple(job.notes),
            )
        )

    def _fail(self, job_id: str, error: Exception) -> None:
        self._loop.drop(job_id)
        if not self._close(job_id):
            return
        cause = as_sfumato_error(error)
        if cause is not error:
            logger.error("job %s failed", job_id, exc_info=error)
        self._send(messages.Failed(job_id=job_id, code=cause.code, message=cause.message))

    def _close(self, job_id: str) -> bool:
        """Forget a job; true for the one caller that may report its end."""
        with self._lock:
            return self._jobs.pop(job_id, None) is not None


def as_sfumato_error(error: Exception) -> SfumatoError:
    """Return what a client may be told of an exception."""
    if isinstance(error, SfumatoError):
        return error
    if is_out_of_memory(error):
        return OutOfMemory("The device ran out of memory for this picture.", hint="Ask for a smaller size.")
    return GenerationFailed(f"The engine failed on this request ({type(error).__name__}).")


def _start_thread(name: str, duty: Callable[[], None]) -> None:
    """Start a thread whose failure ends the process; the server then starts another engine."""

    def guarded() -> None:
        try:
            duty()
        except BaseException:
            logger.exception("the engine cannot go on without its %s", name)
            os._exit(1)

    threading.Thread(target=guarded, name=name, daemon=True).start()


def _work_through(work: "queue.SimpleQueue[Callable[[], None]]") -> None:
    while True:
        work.get()()


def _read_messages(stream: BinaryIO, engine: Engine) -> None:
    """Hand messages to the engine until the server goes away, then end the process."""
    while (body := messages.read_frame(stream)) is not None:
        message = messages.to_engine_decoder.decode(body)
        if isinstance(message, messages.Shutdown):
            break
        engine.receive(message)
    os._exit(0)  # threads may be deep in a forward pass; the job rows are the server's, nothing here is worth saving


def _private_stdout() -> BinaryIO:
    """Take standard output for frames; whatever else prints goes to standard error."""
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return frames


def main() -> None:
    """Run an engine on standard input and output."""
    frames = _private_stdout()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="engine: %(message)s")
    device = Device.choose(os.environ.get("SFUMATO_DEVICE", "auto"), os.environ.get("SFUMATO_PRECISION", "auto"))
    lock = threading.Lock()

    def send(message: messages.FromEngine) -> None:
        with lock:
            frames.write(messages.encode_frame(message))
            frames.flush()

    engine = Engine(device, send)
    _start_thread("reader", partial(_read_messages, sys.stdin.buffer, engine))
    send(
        messages.Ready(
            device=str(device.torch_device),
            precision=device.precision,
            memory_total_bytes=device.memory_total_bytes,
        )
    )
    engine.run()


if __name__ == "__main__":
    main()
