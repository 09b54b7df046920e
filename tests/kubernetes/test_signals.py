"""`on_sigterm="release"` with the handlers of asyncio and uvicorn, in either order; and the ends of a pod."""

from __future__ import annotations

import signal
import sys

import pytest

from lockkit.testing.processes import free_port
from support.holders import AT_ONCE, HOLD

PATIENCE = 40
LOOP = """
import asyncio, signal, lockkit, lockkit.aio

async def main():
    stop = asyncio.Event()
    def told():
        print("told", lease.valid(), flush=True)
        stop.set()
    {first}
    {second}
    lease = await client.lock("job", ttl=60).acquire()
    print("held", flush=True)
    await stop.wait()
    await client.close()
    print("closed", flush=True)

asyncio.run(main())
"""
CONNECT = 'client = lockkit.aio.connect(on_sigterm="release")'
HANDLE = "asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told)"
APPLICATION = """
import asyncio, uvicorn, lockkit, lockkit.aio
{early}
async def application(scope, receive, send):
    global client
    while scope["type"] == "lifespan":
        message = await receive()
        if message["type"] == "lifespan.startup":
            {late}
            application.lease = await client.lock("job", ttl=60).acquire()
            await send({{"type": "lifespan.startup.complete"}})
            print("held", flush=True)
        else:
            print("shutdown", application.lease.valid(), flush=True)
            await send({{"type": "lifespan.shutdown.complete"}})
            return

uvicorn.run(application, host="127.0.0.1", port={port}, lifespan="on", log_level="error")
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("first", ["lockkit", "asyncio"])
def test_the_handler_that_was_installed_last_is_called_first_and_the_program_ends_by_itself(
    started, client, first, loop
):
    """asyncio replaces a handler without a call of it, lockkit calls the one before."""
    both = (CONNECT, HANDLE) if first == "lockkit" else (HANDLE, CONNECT)
    text = LOOP.format(first=both[0], second=both[1])
    if loop == "uvloop":
        pytest.importorskip("uvloop")
        text = text.replace("asyncio.run(", "import uvloop; uvloop.run(")
    program = started(sys.executable, "-c", text)
    assert program.stdout.readline() == "held\n", program.stderr.read()

    program.send_signal(signal.SIGTERM)

    client.lock("job").acquire(timeout=PATIENCE).release()
    out, err = program.communicate(timeout=PATIENCE)
    assert out == f"told {first == 'lockkit'}\nclosed\n"
    assert (program.returncode, err) == (0, "")


@pytest.mark.parametrize("first", ["lockkit", "uvicorn"])
def test_uvicorn_stops_as_ever_and_the_lock_is_free(started, client, first):
    """A client that was made before the server is asked when the server has stopped, another one at once."""
    early, late = (CONNECT, "pass") if first == "lockkit" else ("", CONNECT)
    program = started(sys.executable, "-c", APPLICATION.format(early=early, late=late, port=free_port()))
    assert program.stdout.readline() == "held\n", program.stderr.read()

    program.send_signal(signal.SIGTERM)

    client.lock("job").acquire(timeout=PATIENCE).release()
    out, err = program.communicate(timeout=PATIENCE)
    assert out == f"shutdown {first == 'lockkit'}\n"
    assert (program.returncode, err) == (-signal.SIGTERM, "")


def test_sigterm_frees_the_locks_of_a_script_long_before_its_ttl(started, url, client):
    program = started(
        sys.executable, "-c", HOLD.format(url=url, terms=", ttl=60", connect=', on_sigterm="release"')
    )
    assert program.stdout.readline() != "", program.stderr.read()

    program.send_signal(signal.SIGTERM)

    client.lock("job").acquire(timeout=AT_ONCE).release()
    assert program.wait(PATIENCE) == -signal.SIGTERM


def test_sigterm_frees_the_lock_of_run_when_its_command_has_ended(started, lockkit_line, client):
    run = started(*lockkit_line, "run", "job", "--ttl", "60s", "--", "sh", "-c", "echo in; exec sleep 60")
    assert run.stdout.readline() == "in\n", run.stderr.read()

    run.send_signal(signal.SIGTERM)

    client.lock("job").acquire(timeout=AT_ONCE).release()
    assert run.wait(PATIENCE) == 128 + signal.SIGTERM


def test_a_pod_whose_grace_period_is_over_frees_its_lock_after_its_ttl(started, lockkit_line, client):
    """SIGTERM, which the command ignores, and SIGKILL to all when terminationGracePeriodSeconds are over."""
    run = started(
        *lockkit_line,
        "run",
        "job",
        "--ttl",
        "2s",
        "--",
        "sh",
        "-c",
        'trap "" TERM; echo in; while :; do sleep 0.1; done',
    )
    assert run.stdout.readline() == "in\n", run.stderr.read()
    run.send_signal(signal.SIGTERM)
    with pytest.raises(TimeoutError):
        client.lock("job").acquire(timeout=3)

    run.kill()

    client.lock("job").acquire(timeout=2 + 1 + AT_ONCE).release()
