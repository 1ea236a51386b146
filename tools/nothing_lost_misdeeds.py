"""What real applications do to the process they are in: the misdeeds that nothing_lost.py asks for.

Each is a function or coroutine function that is given the response to a request; it may answer it or not, raise what it
likes, and leave behind what it likes, as long as that ends within some seconds. None of it may end the worker, reach
another client, or keep the server from noticing that the worker has died.
"""

import asyncio
import contextlib
import logging
import logging.config
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

from mooring import Response, Server, SpawnFull

LEFT_BEHIND = 20.0  # seconds that a child lives on: longer than a client may wait
STREAM = 3.0  # seconds that an answer takes
BLOCK = 0.3  # seconds that the loop stands still
SPAWNED = 3  # pieces of work at most that one of them spawns

Misdeed = Callable[[Response], Any]
MISDEEDS: dict[str, Misdeed] = {}
tasks: list[asyncio.Task[None]] = []  # so that they are not collected
servers: list[Server] = []  # the application's, its only one


def misdeed(function: Misdeed) -> Misdeed:
    MISDEEDS[function.__name__] = function
    return function


# ------------------------------------------------------------------------------ children


@misdeed
def fork(response: Response) -> None:
    """The child keeps every descriptor of its parent."""
    if os.fork() == 0:
        time.sleep(LEFT_BEHIND)
        os._exit(0)
    response.end("forked")


@misdeed
def fork_and_unwind(response: Response) -> None:
    """The child leaves through the server's own code."""
    if os.fork() == 0:
        sys.exit(3)
    response.end("forked")


@misdeed
def open_program(response: Response) -> None:
    subprocess.Popen(["sleep", str(LEFT_BEHIND)], close_fds=False, start_new_session=True)
    response.end("opened")


@misdeed
def interrupt_program(response: Response) -> None:
    program = subprocess.Popen(["sleep", "30"])
    program.send_signal(signal.SIGINT)
    try:
        response.end(f"ended with {program.wait(5)}")
    finally:
        program.kill()


@misdeed
def terminate_child(response: Response) -> None:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    child.start()
    child.terminate()
    child.join(5)
    response.end(f"ended with {child.exitcode}")
    child.kill()


@misdeed
async def run_program(response: Response) -> None:
    program = await asyncio.create_subprocess_exec("true")
    response.end(f"ended with {await program.wait()}")


# ------------------------------------------------------------------------------ errors


class Unprintable(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("it has no text")

    __repr__ = __str__


@misdeed
def raise_unprintable(_response: Response) -> None:
    raise Unprintable


@misdeed
def interrupt_itself(_response: Response) -> None:
    raise KeyboardInterrupt


@misdeed
async def leave_by_exit(_response: Response) -> None:
    await asyncio.sleep(0)
    sys.exit("enough")


@misdeed
async def leave_by_group(_response: Response) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leave_in_task())
        await asyncio.sleep(1)


async def leave_in_task() -> None:
    await asyncio.sleep(0)
    raise SystemExit(4)


@misdeed
async def leave_task_behind(response: Response) -> None:
    """A task of its own that ends by what ends programs."""
    tasks.append(asyncio.get_running_loop().create_task(leave_in_task()))
    response.end("left behind")


@misdeed
def raise_in_callback(response: Response) -> None:
    asyncio.get_running_loop().call_soon(interrupt_itself, response)
    response.end("later")


@misdeed
def raise_in_thread(response: Response) -> None:
    thread = threading.Thread(target=raise_unprintable, args=(response,), daemon=True)
    thread.start()
    thread.join(5)
    response.end("raised")


@misdeed
async def cancel_itself(_response: Response) -> None:
    raise asyncio.CancelledError


@misdeed
def recurse(response: Response) -> None:
    recurse(response)  # RecursionError


# ------------------------------------------------------------------------------ what it gives back


class Promise:
    """An awaitable that is no coroutine."""

    def __init__(self, response: Response) -> None:
        self.response = response

    def __await__(self) -> Generator[Any, None, None]:
        yield from asyncio.sleep(0).__await__()
        self.response.end("kept")


@misdeed
def return_promise(response: Response) -> Promise:
    return Promise(response)


@misdeed
def return_future(response: Response) -> Any:
    response.end("soon")
    return asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.01))


# ------------------------------------------------------------------------------ what is everybody's


@misdeed
def configure_logging(response: Response) -> None:
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True, "root": {"level": "CRITICAL"}})
    response.end("configured")


@misdeed
def mute_logging(response: Response) -> None:
    logging.disable(logging.CRITICAL)
    logging.getLogger().handlers.clear()
    response.end("muted")


@misdeed
def lose_output(response: Response) -> None:
    """What is printed goes nowhere any more, and says so."""

    def write(_text: str) -> int:
        raise BrokenPipeError

    def flush() -> None:
        raise BrokenPipeError

    sys.stdout = SimpleNamespace(write=write, flush=flush)
    with contextlib.suppress(BrokenPipeError):
        print("nobody hears this")
    response.end("printed")


@misdeed
def change_surroundings(response: Response) -> None:
    os.environ.clear()
    os.chdir("/")
    os.umask(0o777)
    response.end("changed")


# ------------------------------------------------------------------------------ time


@misdeed
def block(response: Response) -> None:
    time.sleep(BLOCK)
    response.end("blocked")


@misdeed
async def stream(response: Response) -> None:
    """A long answer, whose reader leaves."""
    for _ in range(int(STREAM * 20)):
        await response.write("x" * 1000)
        await asyncio.sleep(0.05)
    response.end("")


@misdeed
async def stream_events(response: Response) -> None:
    events = response.event_stream(keep_alive=1)
    for number in range(int(STREAM * 20)):
        await events.send(str(number))
        await asyncio.sleep(0.05)


# ------------------------------------------------------------------------------ work for the connections of others


def clients() -> list[int]:
    """Some that are there, served by this worker or by others."""
    found = [fd for fd in servers[0].connections if servers[0].is_established(fd)]
    return random.sample(found, min(SPAWNED, len(found)))


def spawn_for_others(response: Response, *works: Callable[[int], Any], endless: bool = False) -> None:
    for fd, work in zip(clients(), works * SPAWNED, strict=False):
        with contextlib.suppress(SpawnFull):
            servers[0].spawn(fd, work(fd), endless=endless)
    response.end("spawned")


async def short(_fd: int) -> None:
    await asyncio.sleep(0.01)


async def long(_fd: int) -> None:
    try:
        await asyncio.sleep(STREAM)
    finally:
        await asyncio.sleep(0.1)


async def stubborn(_fd: int) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(STREAM)
    await asyncio.sleep(BLOCK)


@misdeed
def spawn(response: Response) -> None:
    spawn_for_others(response, short, long, stubborn)


@misdeed
def spawn_endless(response: Response) -> None:
    spawn_for_others(response, long, stubborn, endless=True)


@misdeed
def spawn_and_cancel(response: Response) -> None:
    spawn_for_others(response, long, stubborn)
    for fd in servers[0].connections:
        servers[0].cancel(fd, random.choice(["long", "stubborn", None]))
