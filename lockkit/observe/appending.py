"""Files of lines that several processes append to at once, and that are rotated when they are full.

Each line is one ``write`` with O_APPEND, so lines never mix. A crash or a full disk leaves at most one
incomplete line; the next one starts a new row, and readers skip and count what they cannot read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from pathlib import Path
from typing import BinaryIO

from lockkit.config.places import make_folders
from lockkit.lib.namedtuples import NamedTuple

__all__ = ["Contents", "absent", "append", "opened", "parsed", "read_records", "regular", "rotated"]

_TRIES = 20


class Contents(NamedTuple):
    """The lines of a file, and how many could not be read."""

    records: list[dict[str, object]]
    torn: int = 0


def append(
    path: Path,
    line: str,
    *,
    rotate_at: int,
    keep: int = 1,
    sync: bool = True,
    mode: int = 0o600,
    now: bool = False,
) -> None:
    """Append a line.

    Args:
        path: The file; it and its folder (0700) are created if they are missing.
        line: The line, without a newline.
        rotate_at: The size in bytes from which the file becomes ``NAME.1``, and that becomes ``NAME.2``.
        keep: How many renamed files are kept; an older one is lost.
        sync: Whether the line is on stable storage before the call returns.
        mode: The rights of a new file, whatever the umask.
        now: Whether the file is renamed now, however small it is.

    Raises:
        OSError: The line could not be written.
    """
    make_folders(path.parent)
    handle = _opened(path, mode)
    try:
        if (now or os.fstat(handle).st_size >= rotate_at) and _moved(path, handle, keep):
            handle, full = _opened(path, mode), handle
            os.close(full)
        # A newline comes first, in case a crash cut the last line.
        row = f"\n{line}\n".encode()
        if os.write(handle, row) != len(row):
            # The written part stays and counts as torn: another process may have appended a line since.
            raise OSError(errno.ENOSPC, "only a part of the line was written")
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def read_records(path: Path) -> Contents:
    """Every line of a file that is a JSON object, oldest first; none if there is no file.

    Raises:
        OSError: The file is there and cannot be read.
    """
    try:
        with regular(path) as file:
            return parsed(file.read())
    except FileNotFoundError:
        return Contents([])


def parsed(content: bytes) -> Contents:
    """Every line of the content of a file that is a JSON object, oldest first."""
    text = content.decode("utf-8", errors="replace")
    found: list[dict[str, object]] = []
    torn = 0
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            torn += 1
    return Contents(found, torn)


def opened(path: Path) -> list[BinaryIO]:
    """A file and its renamed predecessors, oldest first, opened for reading; complete even during a rotation.

    Raises:
        OSError: The file does not exist, or one of them cannot be read.
    """
    found: list[BinaryIO] = []
    for turn in range(_TRIES):
        again = turn < _TRIES // 2
        with contextlib.ExitStack() as unused:
            found = [unused.enter_context(regular(path))]
            for older in rotated(path):
                with contextlib.suppress(FileNotFoundError):
                    found.append(unused.enter_context(regular(older)))
            mine, there = os.fstat(found[0].fileno()), path.stat()
            again = again and bool(absent(path))  # while files are renamed, a number is free for a moment
            if not again and (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                unused.pop_all()
                return found[::-1]
    raise OSError(errno.EBUSY, "it is renamed again and again")


def regular(path: Path) -> BinaryIO:
    """A file, opened to be read.

    Raises:
        OSError: The file does not exist, or is not regular: a FIFO would block, a link may lead anywhere.
    """
    with contextlib.ExitStack() as unused:
        file = unused.enter_context(open(path, "rb", opener=_to_read))
        _check_regular(file.fileno())
        unused.pop_all()
    return file


def _to_read(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _check_regular(handle: int) -> None:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")


def rotated(path: Path) -> list[Path]:
    """The files into which a file was renamed, the newest first: ``NAME.1``, ``NAME.2``, ..."""
    there = [
        (int(each.name.removeprefix(f"{path.name}.")), each)
        for each in path.parent.glob(f"{path.name}.*")
        if each.name.removeprefix(f"{path.name}.").isdigit()
    ]
    return [each for _, each in sorted(there)]


def absent(path: Path) -> list[Path]:
    """Renamed files missing below older ones; for a moment also one that is just being renamed."""
    numbers = {int(each.name.rpartition(".")[2]) for each in rotated(path)}
    highest = min(max(numbers, default=0), 10_000)
    return [path.with_name(f"{path.name}.{each}") for each in range(1, highest) if each not in numbers]


def _opened(path: Path, mode: int) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    handle = os.open(path, flags, mode)
    try:
        _check_regular(handle)
        seen = os.fstat(handle)
        if seen.st_mode & 0o777 != mode and seen.st_uid == os.geteuid():
            os.fchmod(handle, mode)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _moved(path: Path, handle: int, keep: int) -> bool:
    """Rename a full file, unless another process does or did so: a second renaming would lose the first file.

    Never waits for the file's lock. Without it the line goes into the full file, where readers find it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine, there = os.fstat(handle), path.stat()
    except OSError:
        return False
    if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
        for older in reversed(rotated(path)):
            number = int(older.name.rpartition(".")[2])
            if number > keep:
                older.unlink(missing_ok=True)
            elif number < keep:  # the last one is replaced, so that there is always one of each name
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))
    return True
