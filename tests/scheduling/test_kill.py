"""kill -9 of a real engine process in the middle of a job, under the real service."""

import os
import signal
import sys
from pathlib import Path

import psutil

from sfumato.core.jobs import Dialect, JobStatus
from sfumato.core.messages import FromEngine, Step
from sfumato.scheduling.hosts.local import LocalHost
from sfumato.scheduling.service import GenerationService
from sfumato.storage.objects import ObjectStore
from tests.factories import (
    balance_of,
    make_caller,
    make_registry,
    make_request,
    make_settings,
    no_pause,
    open_database,
)

ENGINE = """
import sys, time
from sfumato.core.messages import *
def say(message):
    sys.stdout.buffer.write(encode_frame(message)); sys.stdout.buffer.flush()
say(Ready(device="cpu", precision="float32", memory_total_bytes=1))
while (body := read_frame(sys.stdin.buffer)) is not None:
    message = to_engine_decoder.decode(body)
    if isinstance(message, Generate):
        request = message.request
        for step in range(request.steps):
            say(Step(job_id=message.job_id, index=0, step=step + 1, steps=request.steps))
            time.sleep(0.01)
        pixels = bytes(3 * request.width * request.height)
        say(ImageReady(job_id=message.job_id, index=0, width=request.width, height=request.height, pixels=pixels))
        say(Finished(job_id=message.job_id))
"""


class ShotHost(LocalHost):
    """A host whose first engine is shot at its third step."""

    shots = 1

    async def events(self):  # type: ignore[no-untyped-def]
        async for event in super().events():
            self._shoot_at(event)
            yield event

    def _shoot_at(self, event: FromEngine) -> None:
        if isinstance(event, Step) and event.step == 3 and self.shots and self.pid:
            self.shots -= 1
            os.kill(self.pid, signal.SIGKILL)


async def test_killing_the_engine_process_in_mid_job_loses_neither_job_nor_credit(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    host = ShotHost(settings, command=(sys.executable, "-c", ENGINE))
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=10)
        objects = ObjectStore.open(settings.objects_url)
        service = GenerationService(db, objects, make_registry(), [host], settings, pause=no_pause)
        await service.start()
        job = await service.submit(caller, make_request(seed=5), Dialect.NATIVE)
        done = await service.wait(job.id, timeout_seconds=60)
        pid = host.pid
        await service.stop()
        assert (done.status, done.attempts, done.outputs[0].seed) == (JobStatus.SUCCEEDED, 2, 5)
        assert await balance_of(db, caller) == 9
        assert host.shots == 0
        assert pid is not None
        assert not psutil.pid_exists(pid)
