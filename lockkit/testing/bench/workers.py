"""Worker processes: each runs a generator, to which its parent sends values, and whose values it receives."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

__all__ = ["Role", "quiet", "started"]

Role: TypeAlias = Generator[Any, Any, None]
"""The work of a process. Its first value, which nobody has to ask for, says that the process is ready."""


@contextlib.contextmanager
def started(role: Callable[..., Role], *args: object) -> Iterator[Connection]:
    """Start a process for a role, and yield the connection to it. The process is killed with the block.

    Raises:
        RuntimeError: The process ended before that.
    """
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_perform, args=(there, role, *args), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    except EOFError as error:
        process.join()
        raise RuntimeError(f"a worker of the benchmark ended with exit code {process.exitcode}") from error
    finally:
        process.kill()
        process.join()
        here.close()


def _perform(parent: Connection, role: Callable[..., Role], *args: object) -> None:
    with quiet():
        performed = role(*args)
        value = next(performed)
        while True:
            parent.send(value)
            value = performed.send(parent.recv())


@contextlib.contextmanager
def quiet(level: int = logging.ERROR) -> Iterator[None]:
    """Log no warnings: one from each client, about a server without persistence, would hide the figures."""
    log = logging.getLogger("lockkit")
    before = log.level
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)
