"""The command line in forks of a warm process, as starting Python and importing lockkit is far slower.

Each command is a process as users start it: with its own pid, environment, working folder, standard streams
and end. Only its parent and its command line are those of the warm process. A test of these, or of what
only a new interpreter shows (which modules a command imports), starts a new one.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pkgutil
import select
import selectors
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["alike", "completed"]

_READ_AT_START = ("PYTHON", "LC_", "LANG", "TZ", "MALLOC_", "LD_", "COVERAGE_")
_PACKAGES = (
    "lockkit .cli .cli.commands .drivers .gpu .observe .plugins .protocol .shared .store .views "
    "lockkit_sqlite"
)
_COMMAND = [sys.executable, "-m", "lockkit"]
_LONGEST = 1 << 20


def completed(
    line: Sequence[str], *, env: Mapping[str, str], timeout: float = 60.0, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program and return its text, as ``subprocess.run``: ``python -m lockkit`` in a fork if it can be.

    Args:
        line: The program and its arguments.
        env: The environment of the program.
        timeout: Seconds after which the program is killed.
        more: More keywords for ``subprocess.Popen``, and ``input``. Only ``input`` and ``cwd`` fork.
    """
    sent = more.pop("input", None)
    forked = list(line[:3]) == _COMMAND and more.keys() <= {"cwd"} and alike(env)
    start: type[subprocess.Popen[str]] = Forked if forked else subprocess.Popen
    streams: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    if sent is not None:
        streams["stdin"] = subprocess.PIPE
    with start(list(line), **streams, **more, env=env, text=True) as process:
        try:
            out, err = process.communicate(sent, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def alike(env: Mapping[str, str]) -> bool:
    """Whether a new interpreter would find here what the warm process found in the tests' environment."""
    return _of_the_interpreter(env) == _of_the_interpreter(os.environ)


def _of_the_interpreter(env: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in env.items() if key.startswith(_READ_AT_START)}


class Forked(subprocess.Popen[str]):
    """``subprocess.Popen`` of ``python -m lockkit ...``, in another way."""

    _connection: socket.socket

    def _execute_child(self, line: list[str], *rest: Any) -> None:
        """Have the process forked, with its ends of the pipes. ``rest`` is what CPython's own method gets."""
        folder, env, streams = rest[4], rest[5], rest[9:15]
        given = [end if end >= 0 else at for at, end in enumerate((streams[0], streams[3], streams[5]))]
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(_warm())
        request = [line[3:], dict(os.environ if env is None else env), os.fspath(folder or ".")]
        data = json.dumps(request).encode("ascii")
        socket.send_fds(self._connection, [data], given)
        self.pid = int(self._connection.recv(64))
        self._child_created = True
        self._close_pipe_fds(*streams)  # type: ignore[attr-defined]

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if not select.select([self._connection], [], [], 0 if flags & os.WNOHANG else None)[0]:
            return 0, 0
        status = int(self._connection.recv(64))
        self._connection.close()
        return self.pid, status

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


_ADDRESS: list[str] = []


def _warm() -> str:
    """The address of this process's warm one, which ends with it."""
    if not _ADDRESS:
        folder = tempfile.TemporaryDirectory(prefix="lockkit-warm-")
        address = f"{folder.name}/asked"
        process = subprocess.Popen(
            [sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

        def end() -> None:
            process.communicate()
            folder.cleanup()

        atexit.register(end)
        _ADDRESS.append(address)
    return _ADDRESS[0]


# -- the warm process


def _serve(address: str) -> None:
    """Until standard input is closed: fork for each request; answer with the pid, and later with its end."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
        selectors.DefaultSelector() as awaited,
    ):
        listening.bind(address)
        listening.listen()
        awaited.register(listening, selectors.EVENT_READ)
        awaited.register(0, selectors.EVENT_READ)
        os.write(1, b"ready\n")
        while True:
            for key, _ in awaited.select():
                if key.fileobj == 0:
                    return
                if key.fileobj is listening:
                    connection, _address = listening.accept()
                    request, streams, _flags, _from = socket.recv_fds(connection, _LONGEST, 3)
                    pid = os.fork()
                    if not pid:
                        for other in (awaited, listening, connection):
                            other.close()
                        _become(request, streams)
                    for stream in streams:
                        os.close(stream)
                    connection.send(b"%d" % pid)
                    awaited.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
                else:
                    pid, connection = key.data
                    awaited.unregister(key.fd)
                    os.close(key.fd)
                    status = os.waitpid(pid, 0)[1]
                    with contextlib.suppress(OSError):  # nobody waits for it any more
                        connection.send(b"%d" % status)
                    connection.close()


def _become(request: bytes, streams: list[int]) -> NoReturn:
    """Be the command."""
    words, env, folder = json.loads(request)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for at, stream in enumerate(streams):
        os.dup2(stream, at)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (for as long as the process lives, as the others)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    from lockkit import __main__ as program
    from lockkit.cli.script import main

    sys.argv = [program.__file__, *words]
    main()


def _load() -> None:
    """Import what commands import when they come to it."""
    for name in _PACKAGES.replace(" .", " lockkit.").split():
        for module in pkgutil.iter_modules(import_module(name).__path__, f"{name}."):
            if not module.ispkg:
                with contextlib.suppress(ImportError):  # of a library that is not installed here
                    import_module(module.name)


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    _load()
    gc.collect()
    gc.freeze()
    _serve(sys.argv[1])
