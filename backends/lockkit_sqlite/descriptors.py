"""File descriptors that no signal handler can lose, and modes that are set through them."""

from __future__ import annotations

import os
import select
from typing import TypeAlias

__all__ = ["Descriptor", "opened", "set_mode"]

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


def set_mode(path: str, mode: int) -> None:
    """Set the mode of a file or folder that this process has just made, and never that of a file elsewhere.

    Another member of the group may have put a link in its place meanwhile, and this process may be root's. The system has no chmod that
    refuses a link, so the call goes through a descriptor of the name itself.

    Raises:
        OSError: The mode cannot be set, or the name is a link.
    """
    descriptor = opened(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        os.chmod(f"/proc/self/fd/{descriptor.fileno()}", mode)  # noqa: PTH101
    finally:
        descriptor.close()
