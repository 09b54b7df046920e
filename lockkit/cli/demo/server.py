"""A private Redis server for the demo: on a free local port, in a temporary folder, gone with the demo."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from lockkit.testing.processes import (
    ServerFailed,
    ServerProcess,
    find_program,
    free_port,
    scratch_folder,
    until,
)

__all__ = ["private_redis"]

_ATTEMPTS = 10


@contextmanager
def private_redis() -> Iterator[str]:
    """The URL of a server that runs as long as the block.

    Raises:
        ServerMissing: Neither redis-server nor valkey-server is installed.
        ServerFailed: The server did not start.
    """
    program = find_program("redis-server", "valkey-server")
    process = ServerProcess(scratch_folder("redis"))
    try:
        yield f"redis://127.0.0.1:{_started(process, program)}/0"
    finally:
        process.remove()


def _started(process: ServerProcess, program: str) -> int:
    """Start the server; the port that it listens on."""
    for _ in range(_ATTEMPTS):
        port = free_port()
        if _starts(process, program, port):
            return port
        # Another program may have taken the port since it was found to be free.
        if "address already in use" not in process.last_words().lower():
            raise ServerFailed(f"{program} did not start:\n{process.last_words()}")
        process.log.unlink()
    raise ServerFailed(f"no free port in {_ATTEMPTS} attempts")


def _starts(process: ServerProcess, program: str, port: int) -> bool:
    place = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(process.folder)]
    process.start([program, *place, "--save", "", "--appendonly", "yes"])
    until(lambda: not process.alive or _answers(process, port), "the Redis server answers")
    if not process.alive:
        process.kill()  # so that it can be started again
        return False
    return True


def _answers(process: ServerProcess, port: int) -> bool:
    """Whether this server answers, and not another program that has taken the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as plain:
            plain.sendall(b"INFO server\r\nQUIT\r\n")
            told = b"".join(iter(partial(plain.recv, 4096), b""))
    except OSError:
        return False
    return b"process_id:%d\r\n" % process.pid in told
