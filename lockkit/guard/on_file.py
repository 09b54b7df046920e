"""The gate before a file or folder: a kernel lock, a comparison of fences, and a rename into place."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from lockkit.config.places import network_filesystem
from lockkit.errors import (
    BackendError,
    BackendUnavailable,
    ConfigError,
    LockkitError,
    OutcomeUnknown,
    PermissionDenied,
)
from lockkit.guard.gate import TIMEOUT, FenceGate, Guarded
from lockkit.guard.leases import FencedLease
from lockkit.guard.record import SUFFIX, Record, judged
from lockkit.guard.swapping import read_record
from lockkit.store.spi import Refused, Unknown

__all__ = ["FileGate", "GuardedFile", "PlainFile"]

_PAUSE = 0.01


class PlainFile:
    """A file, or a link to a folder, and the record beside it; see :class:`lockkit.guard.gate.Resource`.

    Every step holds flock(2) on the record, the file ``.NAME.lockkit-fence``; a dying process frees it.
    """

    largest: int | None = None
    local = True
    """Whether another host has another resource of this name."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise ConfigError(f"a path must be a str or a Path, not {type(path).__name__}")
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 (resolve would follow the link to replace)
        if (
            not os.fspath(path)
            or not self.path.name
            or "\0" in str(self.path)
            or os.fspath(path).endswith("/")
        ):
            raise ConfigError(f"not the path of a file: {os.fspath(path)!r:.100}")
        if self.path.is_symlink() and not self.path.is_dir():
            if not self.path.is_file():
                raise ConfigError(
                    f"the link {str(self.path)!r} leads to no file",
                    hint="guard the file that it is to lead to",
                )
            self.path = self.path.resolve()  # a file has one record, whatever link leads to it
        self.where = f"the file {str(self.path)!r}"
        kind = network_filesystem(self.path.parent)
        if kind is not None:
            raise ConfigError(
                f"{self.where} is on {kind}, a network file system, on which file locks do not keep all "
                "hosts apart",
                hint="guard a local file, or a key of a database or an object store",
            )
        self._record = self.path.with_name(f".{self.path.name}{SUFFIX}")

    def step(self, asked: Record, value: bytes | None, end: float) -> Record | None:
        with self._mapped():
            if value is None:
                return self._enter(asked, end)
            with self._prepared(value) as prepared:
                return self.put(asked, prepared, end)

    def put(self, asked: Record, prepared: Path, end: float) -> Record | None:
        """Rename a prepared file or link to the guarded path, if the record allows it."""
        with self._mapped(), self._locked(end) as record:
            stored = self._read(record)
            if judged(stored, asked) == "STALE":
                return stored or Record(0, "")
            prepared.replace(self.path)
            try:
                _sync(self.path.parent)
            except OSError as error:
                raise Unknown(
                    OutcomeUnknown(
                        f"{self.where}: {error}", hint="it was renamed, but may not survive a power cut"
                    ),
                    retry=False,
                ) from error
        return None

    def look(self, end: float) -> tuple[Record | None, bytes | None]:
        with self._mapped():
            if not self._record.exists():
                return None, self._value()
            with self._locked(end) as record:
                return self._read(record), self._value()

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def _enter(self, asked: Record, end: float) -> Record | None:
        with self._locked(end) as record:
            stored = self._read(record)
            verdict = judged(stored, asked)
            if verdict == "STALE":
                return stored
            if verdict == "APPLY":
                # All records are equally long, so one write replaces the whole of the old one.
                os.pwrite(record, str(asked).encode(), 0)
                os.fsync(record)
                _sync(self.path.parent)
        return None

    @contextlib.contextmanager
    def _locked(self, end: float) -> Iterator[int]:
        """The locked record's descriptor. Bounded: a process stopped in its own step keeps the lock."""
        record = self._locked_record(end)
        try:
            if self.path.is_symlink() and self.path.is_file():
                # Newer holders use the record of the file that the link leads to.
                hint = "write to the file that it leads to, and do not replace the link"
                raise Refused(BackendError(f"{self.where} is a link by now", hint=hint), retry=False)
            yield record.fileno()
        finally:
            # A child that another thread forked meanwhile has the descriptor, too.
            fcntl.flock(record, fcntl.LOCK_UN)
            record.close()

    def _locked_record(self, end: float) -> FileIO:
        while True:
            # An object rather than a descriptor: after any Ctrl-C, it is closed when nothing refers to it.
            record = FileIO(self._record, "r+", opener=_create)
            try:
                fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same(record.fileno(), self._record):
                    return record
                record.close()
            except BlockingIOError:
                record.close()
                if time.monotonic() >= end:
                    hint = f"see who has it open: fuser -v {str(self._record)!r}"
                    held = (
                        f"{self.where}: another process, perhaps a stopped one, is in the middle of a write"
                    )
                    raise Refused(BackendUnavailable(held, hint=hint), retry=False) from None
                time.sleep(_PAUSE)

    def _read(self, record: int) -> Record | None:
        return read_record(os.pread(record, 200, 0) or None, self.where)

    def _value(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return None

    @contextlib.contextmanager
    def _prepared(self, value: bytes) -> Iterator[Path]:
        """A file with the new value, on the disk, in the same folder."""
        scratch = self._scratch()
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with open(descriptor, "wb") as file:  # noqa: PTH123 (of a descriptor)
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(descriptor, stat.S_IMODE(self.path.stat().st_mode))
                file.write(value)
                file.flush()
                os.fsync(descriptor)
            yield scratch
        finally:
            scratch.unlink(missing_ok=True)

    @contextlib.contextmanager
    def linked(self, folder: Path) -> Iterator[Path]:
        """A symbolic link to a folder, beside the guarded path."""
        scratch = self._scratch()
        try:
            scratch.symlink_to(folder, target_is_directory=True)
            yield scratch
        finally:
            scratch.unlink(missing_ok=True)

    def _scratch(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.new")

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn errors of the file system into refusals: nothing was renamed."""
        try:
            yield
        except OSError as error:
            told = f"{self.where}: {error.strerror or error}"
            kind: type[LockkitError] = (
                PermissionDenied if isinstance(error, PermissionError) else BackendError
            )
            hint = "the user needs to write in the folder" if kind is PermissionDenied else None
            raise Refused(kind(told, hint=hint), retry=False) from error


class GuardedFile(Guarded):
    """A file that a holder has opened.

    ``read`` returns the content (None for a folder); ``write`` replaces the file as a whole.
    """

    def __init__(self, file: PlainFile, lease: FencedLease, opening: Record, timeout: float) -> None:
        super().__init__(file, lease, opening, timeout)
        self._file = file

    def publish(self, prepared: str | os.PathLike[str]) -> None:
        """Put a prepared file or folder in place, in the same atomic step with the check of the fence.

        A file is renamed to the guarded path; for a folder the path becomes a symbolic link to it. Flush your
        data to the disk (``os.fsync``) before, if it must survive a power cut.

        Raises:
            ConfigError: No file or folder, another file system, or a folder at the path. Nothing changed.
            StaleFence, LeaseLost, NotHeld, BackendError: As for ``write``.
        """
        source, target = Path(prepared), self._file.path
        folder = source.is_dir()
        if not folder and not source.is_file():
            raise ConfigError(f"{str(source)!r} is neither a file nor a folder")
        if target.is_dir() and not target.is_symlink():
            raise ConfigError(
                f"{str(target)!r} is a folder", hint="guard the path of a link: rename the folder first"
            )
        if not folder and source.stat().st_dev != target.parent.stat().st_dev:
            raise ConfigError(
                f"{str(source)!r} is on another file system than {str(target)!r}",
                hint="prepare it in the same folder",
            )
        if folder:
            with self._file.linked(source.absolute()) as link:
                self._step(lambda asked, end: self._file.put(asked, link, end))
        else:
            self._step(lambda asked, end: self._file.put(asked, source, end))


class FileGate(FenceGate):
    """The gate before a file, or before the link to a folder."""

    def __init__(self, file: PlainFile, timeout: float = TIMEOUT) -> None:
        super().__init__(file, timeout)
        self._file = file

    def open(self, lease: FencedLease) -> GuardedFile:
        """Register the fence of a lease, as :meth:`FenceGate.open` does."""
        return GuardedFile(self._file, lease, self._opening(lease), self._timeout)


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _same(descriptor: int, path: Path) -> bool:
    """Whether a descriptor is still that of the path: the file may have been removed before it was locked."""
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
