"""Clean up behind a process of tests that was killed: end its servers and remove their folders.

Run as a script, so that it starts fast and needs nothing of its parent: ``python -I -S minder.py PARENT``. Each line of
its standard input names a server (``+PID FOLDER``) or takes one back (``-PID``). A server is held by its pidfd, so a
process that was given the same number later is safe.
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
    """Read orders until the parent is gone or closes them, then clean up behind it."""
    kept: dict[str, tuple[int, str]] = {}
    unread = b""
    try:
        alive = os.pidfd_open(parent)
        while os.getppid() == parent and alive not in select.select([alive, orders], [], [])[0]:
            arrived = os.read(orders, 65536)
            if not arrived:
                break
            *lines, unread = (unread + arrived).split(b"\n")
            for line in lines:
                _obey(line.decode(), kept)
    except ProcessLookupError:
        pass  # gone before it was looked at
    for server, folder in kept.values():
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(server, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _obey(line: str, kept: dict[str, tuple[int, str]]) -> None:
    pid, _, folder = line[1:].partition(" ")
    if line.startswith("+"):
        with contextlib.suppress(ProcessLookupError):
            kept[pid] = os.pidfd_open(int(pid)), folder
    elif pid in kept:
        os.close(kept.pop(pid)[0])


if __name__ == "__main__":
    mind(int(sys.argv[1]), sys.stdin.fileno())
