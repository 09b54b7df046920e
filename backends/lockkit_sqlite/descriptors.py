"""File descriptors that no signal handler can lose, and safe access to folders that others may write to.

A user who may write to a folder can replace anything in it with a link at any moment, even a folder between
two calls of this process, which may be root's. So such a folder is opened once (:func:`inside`), and each of
its files is reached through that descriptor.
"""

from __future__ import annotations

import errno
import os
import select
from functools import partial
from typing import TypeAlias

__all__ = ["Descriptor", "inside", "opened", "set_mode"]

Descriptor: TypeAlias = select.epoll
"""An open file descriptor, closed when collected. ``fileno`` and ``close`` as of any file object."""


def opened(path: str, flags: int, mode: int = 0o600, folder: Descriptor | None = None) -> Descriptor:
    """Open a file or folder, close-on-exec.

    A signal handler that raises right after ``os.open`` would leave an unknown descriptor. So one call of C
    code opens the file and puts the descriptor into an object, which C code closes. An epoll object takes any
    descriptor, that of a folder too.

    Args:
        path: The file or folder.
        flags: As for ``os.open``.
        mode: As for ``os.open``.
        folder: The folder of :func:`inside` that the path starts in; None for an absolute path.

    Raises:
        OSError: The file cannot be opened.
    """
    # A partial object is called by C code alone, too.
    call = os.open if folder is None else partial(os.open, dir_fd=folder.fileno())
    return next(map(select.epoll.fromfd, map(call, (path,), (flags | os.O_CLOEXEC,), (mode,))))


def inside(path: str, flags: int = os.O_PATH) -> Descriptor:
    """Open a folder, to reach its files; a link in its place is refused.

    Raises:
        OSError: There is no folder, or it cannot be opened.
    """
    return opened(path, flags | os.O_DIRECTORY | os.O_NOFOLLOW)


def set_mode(path: str, mode: int, folder: Descriptor | None = None) -> None:
    """Set the mode of a file or folder that this process has just made, but not of one that has replaced it.

    The system has no chmod that refuses a link, so the call goes through a descriptor of the name itself.

    Raises:
        OSError: The mode cannot be set, or the name is a link, or it belongs to another user.
    """
    descriptor = opened(path, os.O_PATH | os.O_NOFOLLOW, folder=folder)
    try:
        if os.fstat(descriptor.fileno()).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "another user has replaced it", path)
        os.chmod(f"/proc/self/fd/{descriptor.fileno()}", mode)  # noqa: PTH101
    finally:
        descriptor.close()
