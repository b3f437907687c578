"""An engine in a real child process: started, listened to, killed, never left behind."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from sfumato.core.messages import Cancel, FromEngine, ImageReady, Ready, Step
from sfumato.scheduling.hosts.local import LocalHost, engine_environment
from tests.factories import make_settings
from tests.fakes import READY

PRELUDE = """
import os, signal, subprocess, sys, time
from sfumato.core.messages import *
out = sys.stdout.buffer
def say(message):
    out.write(encode_frame(message)); out.flush()
say(Ready(device="cpu", precision="float32", memory_total_bytes=8 * 1024**3))
def hear():
    body = read_frame(sys.stdin.buffer)
    return to_engine_decoder.decode(body) if body else None
"""
ECHO = """
while (message := hear()) is not None and not isinstance(message, Shutdown):
    say(Step(job_id=message.job_id, index=0, step=1, steps=2))
"""
STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
say(Step(job_id=str(os.getpid()), index=0, step=1, steps=2))
while True:
    time.sleep(60)
"""
DIES_IN_MID_FRAME = """
frame = encode_frame(ImageReady(job_id="1", index=0, width=64, height=64, pixels=bytes(64 * 64 * 3)))
say(Step(job_id="1", index=0, step=1, steps=2))
out.write(frame[: len(frame) // 2]); out.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
SENDS_MUCH = """
say(ImageReady(job_id="1", index=0, width=2048, height=2048, pixels=bytes(2048 * 2048 * 3)))
"""
TALKS_NONSENSE = """
out.write(b"Loading model... done\\n" * 1000); out.flush()
time.sleep(60)
"""
HAS_A_CHILD = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
say(Step(job_id=str(child.pid), index=0, step=1, steps=2))
os.kill(os.getpid(), signal.SIGKILL)
"""


@asynccontextmanager
async def run_host(folder: Path, script: str, *, grace_seconds: float = 30.0) -> AsyncIterator[LocalHost]:
    command = (sys.executable, "-c", PRELUDE + script)
    host = LocalHost(make_settings(folder), command=command, grace_seconds=grace_seconds)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


async def all_events(host: LocalHost) -> list[FromEngine]:
    return [event async for event in host.events()]


async def test_messages_go_there_and_back(tmp_path: Path) -> None:
    async with run_host(tmp_path, ECHO) as host:
        events = host.events()
        assert await anext(events) == READY
        host.send(Cancel(job_id="7"))
        assert await anext(events) == Step(job_id="7", index=0, step=1, steps=2)


async def test_stopping_ends_the_process_and_leaves_no_zombie(tmp_path: Path) -> None:
    async with run_host(tmp_path, ECHO) as host:
        pid = host.pid
        assert pid is not None
        assert await anext(host.events()) == READY
        await host.stop()
        await host.stop()
        assert not psutil.pid_exists(pid)
        assert host.pid is None
        assert await all_events(host) == []
        host.send(Cancel(job_id="7"))  # is dropped


async def test_an_engine_that_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    async with run_host(tmp_path, STUBBORN, grace_seconds=0.05) as host:
        events = host.events()
        assert isinstance(await anext(events), Ready)
        assert isinstance(await anext(events), Step)  # it ignores SIGTERM from here on
        pid = host.pid
        assert pid is not None
        await host.stop()
        assert not psutil.pid_exists(pid)


async def test_a_killed_engine_ends_the_events_and_can_be_started_again(tmp_path: Path) -> None:
    async with run_host(tmp_path, ECHO) as host:
        for _ in range(2):
            pid = host.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert len(await all_events(host)) <= 1
            await host.start()
            assert host.pid != pid
            assert not psutil.pid_exists(pid)


async def test_an_engine_that_dies_in_mid_frame_loses_that_frame_only(tmp_path: Path) -> None:
    async with run_host(tmp_path, DIES_IN_MID_FRAME) as host:
        assert await all_events(host) == [READY, Step(job_id="1", index=0, step=1, steps=2)]


async def test_a_large_picture_arrives_whole(tmp_path: Path) -> None:
    async with run_host(tmp_path, SENDS_MUCH) as host:
        _, image = await all_events(host)
        assert isinstance(image, ImageReady)
        assert len(image.pixels) == 2048 * 2048 * 3


async def test_an_engine_that_writes_no_messages_is_killed(tmp_path: Path) -> None:
    async with run_host(tmp_path, TALKS_NONSENSE) as host:
        assert await all_events(host) == [READY]
        await host.stop()


async def test_what_an_engine_started_ends_with_it(tmp_path: Path) -> None:
    async with run_host(tmp_path, HAS_A_CHILD) as host:
        # The child has the pipe's end too, so the events end only when both are gone.
        assert len(await all_events(host)) == 2


async def test_ctrl_c_in_the_terminal_does_not_reach_the_engine(tmp_path: Path) -> None:
    async with run_host(tmp_path, ECHO) as host:
        assert host.pid is not None
        assert os.getpgid(host.pid) == host.pid != os.getpgrp()


async def test_an_engine_that_cannot_be_started_is_an_os_error(tmp_path: Path) -> None:
    host = LocalHost(make_settings(tmp_path), command=[str(tmp_path / "nothing")])
    with pytest.raises(OSError):
        await host.start()
    await host.stop()


def test_each_host_has_an_id_of_its_own(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    assert LocalHost(settings).id != LocalHost(settings).id


def test_the_engine_gets_its_settings_and_an_allocator_unless_one_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    found = engine_environment(make_settings(tmp_path, device="cpu", precision="bfloat16"))
    assert (found["SFUMATO_DEVICE"], found["SFUMATO_PRECISION"]) == ("cpu", "bfloat16")
    assert (found["MALLOC_TOP_PAD_"], found["THP_MEM_ALLOC_ENABLE"]) == ("1", "1")


async def test_two_hosts_stop_together(tmp_path: Path) -> None:
    async with run_host(tmp_path, ECHO) as one, run_host(tmp_path, ECHO) as other:
        await asyncio.gather(one.stop(), other.stop())
        assert one.pid is other.pid is None
