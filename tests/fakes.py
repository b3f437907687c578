"""Stand-ins for what is slow or far: an engine host without a process, and pauses that take no time."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from sfumato.core.ids import new_id
from sfumato.core.messages import (
    Cancel,
    Canceled,
    Failed,
    Finished,
    FromEngine,
    Generate,
    ImageReady,
    Ready,
    Started,
    Step,
    ToEngine,
)
from sfumato.core.requests import GenerationRequest

READY = Ready(device="cpu", precision="float32", memory_total_bytes=8 * 1024**3)

M = TypeVar("M", bound=ToEngine)


async def no_pause(_seconds: float) -> None:
    """Wait no time, but let others run."""
    await asyncio.sleep(0)


def colour_of(seed: int) -> bytes:
    """Return the one RGB colour that the fake engine paints for a seed."""
    return bytes(((seed * 37) % 256, (seed * 101) % 256, (seed * 197) % 256))


class FakeHost:
    """A host whose engine paints solid colours.

    By default it answers each `Generate` at once. With `automatic=False` the test is the engine: it takes messages
    with `await host.next(Generate)` and answers with `emit`, `image` and `finish`. Either may `die`.
    """

    def __init__(self, *, automatic: bool = True, says_ready: bool = True) -> None:
        self.automatic = automatic
        self.says_ready = says_ready
        self.starts = 0
        self.start_error: OSError | None = None
        self.sent: list[ToEngine] = []
        self._id = f"fake-{new_id().hex[:12]}"
        self._untaken: list[ToEngine] = []
        self._arrived = asyncio.Event()
        self._events: asyncio.Queue[FromEngine | None] = asyncio.Queue()
        self._is_up = False

    @property
    def id(self) -> str:
        return self._id

    async def start(self) -> None:
        self.starts += 1
        if self.start_error is not None:
            raise self.start_error
        self._events = asyncio.Queue()
        self._is_up = True
        if self.says_ready:
            self.emit(READY)

    def send(self, message: ToEngine) -> None:
        if not self._is_up:
            return
        self.sent.append(message)
        if self.automatic:
            self._answer(message)
        else:
            self._untaken.append(message)
            self._arrived.set()

    async def events(self) -> AsyncIterator[FromEngine]:
        events = self._events
        while (event := await events.get()) is not None:
            yield event
            events.task_done()
        events.task_done()

    async def stop(self) -> None:
        self.die()

    # What a test does as the engine.

    async def next(self, kind: type[M]) -> M:
        """Wait for the next message of a kind, passing over others."""
        while True:
            while self._untaken:
                message = self._untaken.pop(0)
                if isinstance(message, kind):
                    return message
            self._arrived.clear()
            await self._arrived.wait()

    async def heard(self) -> None:
        """Wait until all that was said has been dealt with, but for what goes on in the background."""
        await self._events.join()

    def emit(self, *events: FromEngine) -> None:
        """Say something as the engine."""
        for event in events:
            self._events.put_nowait(event)

    def die(self) -> None:
        """Be gone, as after kill -9."""
        self._is_up = False
        self._untaken.clear()
        self._events.put_nowait(None)

    def image(self, generate: Generate, index: int, *, is_partial: bool = False) -> None:
        """Deliver one picture of a job."""
        request = generate.request
        self.emit(
            ImageReady(
                job_id=generate.job_id,
                index=index,
                width=request.width,
                height=request.height,
                pixels=colour_of(request.seed + index) * (request.width * request.height),
                is_partial=is_partial,
            )
        )

    def finish(self, generate: Generate, *, images: int | None = None) -> None:
        """Deliver the first `images` pictures of a job (all by default) and end it."""
        for index in range(generate.request.image_count if images is None else images):
            self.image(generate, index)
        self.emit(Finished(job_id=generate.job_id))

    def fail(self, generate: Generate, code: str = "generation_failed", message: str = "The engine failed.") -> None:
        """End a job in failure."""
        self.emit(Failed(job_id=generate.job_id, code=code, message=message))

    def _answer(self, message: ToEngine) -> None:
        match message:
            case Generate(job_id=job_id, request=request):
                self.emit(Started(job_id=job_id), *_steps(job_id, request))
                self.finish(message)
            case Cancel(job_id=job_id):
                self.emit(Canceled(job_id=job_id))
            case _:
                pass


def _steps(job_id: str, request: GenerationRequest) -> list[Step]:
    return [
        Step(job_id=job_id, index=index, step=step, steps=request.steps)
        for step in range(1, request.steps + 1)
        for index in range(request.image_count)
    ]
