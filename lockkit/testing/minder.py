"""A process that cleans up after a killed test process: it ends servers and removes their folders.

The module runs as a script, to start fast without its parent's modules: ``python -I -S minder.py PARENT``.
A line of its standard input adds a server (``+PID FOLDER``) or removes one (``-PID``). The minder keeps a
pidfd of each server, so a later process with the same pid is safe.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys

__all__ = ["mind"]


def mind(parent: int, orders: int) -> None:
    """Read orders until the parent is gone or closes the pipe, then clean up."""
    kept: dict[str, tuple[int, str]] = {}
    unread = b""
    try:
        alive = os.pidfd_open(parent)
        while os.getppid() == parent and alive not in select.select([alive, orders], [], [])[0]:
            arrived = os.read(orders, 65536)
            if not arrived:
                break
            unread = _obeyed(unread + arrived, kept)
    except ProcessLookupError:
        pass  # the parent had gone already
    # The last orders may still be unread; a child of the parent may keep the pipe open.
    os.set_blocking(orders, False)
    with contextlib.suppress(BlockingIOError):
        while arrived := os.read(orders, 65536):
            unread = _obeyed(unread + arrived, kept)
    for server, folder in kept.values():
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(server, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _obeyed(orders: bytes, kept: dict[str, tuple[int, str]]) -> bytes:
    """Obey the orders that have arrived whole; return the rest."""
    *lines, rest = orders.split(b"\n")
    for line in lines:
        _obey(line.decode(), kept)
    return rest


def _obey(line: str, kept: dict[str, tuple[int, str]]) -> None:
    pid, _, folder = line[1:].partition(" ")
    if line.startswith("+"):
        with contextlib.suppress(ProcessLookupError):
            kept[pid] = os.pidfd_open(int(pid)), folder
    elif pid in kept:
        os.close(kept.pop(pid)[0])


if __name__ == "__main__":
    mind(int(sys.argv[1]), sys.stdin.fileno())
