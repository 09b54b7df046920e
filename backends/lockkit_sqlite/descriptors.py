"""File descriptors that no signal handler can lose."""

from __future__ import annotations

import os
import select
from typing import TypeAlias

__all__ = ["Descriptor", "opened"]

Descriptor: TypeAlias = select.epoll
"""An open file descriptor that is closed when this object is collected. ``fileno`` and ``close`` are as of any file object."""


def opened(path: str, flags: int, mode: int = 0o600) -> Descriptor:
    """Open a file or folder, close-on-exec.

    A signal handler that raises right after ``os.open`` would leave a descriptor that nobody knows. So one call of C code opens
    the file and puts the descriptor into an object, which C code closes. An epoll object takes any descriptor, that of a folder
    too.

    Raises:
        OSError: The file cannot be opened.
    """
    return next(map(select.epoll.fromfd, map(os.open, (path,), (flags | os.O_CLOEXEC,), (mode,))))
