"""An engine in a child process on this machine, spoken to over its standard input and output."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import structlog

from sfumato.core.ids import new_id
from sfumato.core.messages import FromEngine, Shutdown, ToEngine, encode_frame, frame_length, from_engine_decoder
from sfumato.settings import Settings

ENGINE_COMMAND = (sys.executable, "-m", "sfumato.engine.worker")

_ALLOCATOR = {
    # Fresh memory is slow to fault in: elementwise kernels ran 8 to 12 times faster once glibc kept freed memory
    # and took it in huge pages (benchmarks/). An allocator is chosen before a process starts, so the parent does it.
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
_HEADER_BYTES = 4
_READ_BUFFER_BYTES = 8 * 1024 * 1024  # a picture of 1024 x 1024 is 3 MB

logger = structlog.get_logger(__name__)


class LocalHost:
    """One engine process at a time; its standard error is this process's.

    The child has a process group of its own: Ctrl-C in a terminal reaches the server alone, which then ends the child
    in order. When the child ends by itself, whatever it started ends with it.
    """

    def __init__(
        self, settings: Settings, *, command: Sequence[str] = ENGINE_COMMAND, grace_seconds: float = 5.0
    ) -> None:
        self._id = f"local-{new_id().hex[:12]}"
        self._command = tuple(command)
        self._environment = engine_environment(settings)
        self._grace_seconds = grace_seconds
        self._process: Process | None = None
        self._received: asyncio.Queue[FromEngine | None] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def id(self) -> str:
        return self._id

    @property
    def pid(self) -> int | None:
        """The process id of the engine; None while there is none."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the engine's process. Raises `OSError`."""
        await self.stop()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            lambda: _EngineProtocol(limit=_READ_BUFFER_BYTES, loop=loop),
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=None,
            env=self._environment,
            process_group=0,
        )
        self._process = process = Process(transport, protocol, loop)
        self._received = asyncio.Queue()
        self._tasks = [
            asyncio.create_task(self._read(process, self._received)),
            asyncio.create_task(self._reap(process)),
        ]

    def send(self, message: ToEngine) -> None:
        """Write a message to the engine's pipe; it is small, and the pipe's buffer takes it."""
        stdin = self._process.stdin if self._process else None
        if stdin is not None and not stdin.is_closing():
            stdin.write(encode_frame(message))

    async def events(self) -> AsyncIterator[FromEngine]:
        """Yield what the engine says until its end of the pipe is closed."""
        received = self._received
        while (event := await received.get()) is not None:
            yield event
        received.put_nowait(None)  # a second reader finds the end as well

    async def stop(self) -> None:
        """Ask the engine to end, then kill it if it has not within the grace period."""
        process = self._process
        if process is None:
            return
        self.send(Shutdown())
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            _signal_group(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), self._grace_seconds)
        except TimeoutError:
            _signal_group(process.pid, signal.SIGKILL)
        await asyncio.gather(*self._tasks)
        self._process = None

    async def _read(self, process: Process, received: asyncio.Queue[FromEngine | None]) -> None:
        """Take frames off the pipe until it ends, also in mid-frame; then tell `events`."""
        stream = process.stdout
        assert stream is not None
        try:
            while True:
                length = frame_length(await stream.readexactly(_HEADER_BYTES))
                received.put_nowait(from_engine_decoder.decode(await stream.readexactly(length)))
        except asyncio.IncompleteReadError:
            pass
        except ValueError as error:  # msgspec's errors are ValueErrors too
            logger.error("an engine says what is no message; it is killed", pid=process.pid, error=str(error))
            _signal_group(process.pid, signal.SIGKILL)
            await stream.read()  # to the end, so that the pipe is closed
        finally:
            received.put_nowait(None)

    async def _reap(self, process: Process) -> None:
        """Wait for the process, so that no zombie is left."""
        code = await process.wait()
        logger.info("an engine process has ended", pid=process.pid, code=code)


class _EngineProtocol(SubprocessStreamProtocol):
    """Ends what an engine started, as soon as it has ended itself.

    This cannot wait for `Process.wait`, which waits for the pipes to close as well, and the engine's children would
    hold them open.
    """

    _pid: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if isinstance(transport, asyncio.SubprocessTransport):
            self._pid = transport.get_pid()

    def process_exited(self) -> None:
        super().process_exited()
        if self._pid is not None:
            _signal_group(self._pid, signal.SIGKILL)


def engine_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of an engine process: ours, the engine's settings, and an allocator unless one is set."""
    return {
        **_ALLOCATOR,
        **os.environ,
        "SFUMATO_DEVICE": settings.device,
        "SFUMATO_PRECISION": settings.precision,
    }


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
