"""The process of a private server for tests: started in a folder of its own, and always ended."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lockkit.testing import minder

__all__ = [
    "ServerFailed",
    "ServerMissing",
    "ServerProcess",
    "find_program",
    "free_port",
    "installed",
    "scratch_folder",
    "until",
]

PATIENCE = 30.0
"""Seconds for a server to start, stop or agree with others."""
_PORTS = range(10_000, 32_000)
_OWN = 200
"""The number of ports for each process."""


class ServerMissing(RuntimeError):
    """Raised when a program is not installed."""


class ServerFailed(RuntimeError):
    """Raised when a server did not start, or failed. The message has the end of its log."""


def find_program(*names: str) -> str:
    """The path of the first of these programs that is installed.

    Raises:
        ServerMissing: None of them is installed.
    """
    # Debian keeps some servers out of a user's PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    raise ServerMissing(f"{' or '.join(names)} is not installed")


def installed(name: str) -> bool:
    """Whether a program is installed."""
    try:
        find_program(name)
    except ServerMissing:
        return False
    return True


def free_port() -> int:
    """A loopback port that is free at this moment. Another program may take it: be ready to try again.

    Each process chooses from ports of its own, and takes a port again only after all others. They are below
    those that systems give to connections, so the port of a stopped server stays free.
    """
    first = _own_ports()
    for _ in range(_OWN):
        port = first + next(_turn) % _OWN
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerFailed(f"none of the ports {first} to {first + _OWN - 1} is free")


_turn = itertools.count()
_firsts: dict[int, int] = {}
"""The first of the ports of this process, by its pid: a forked child has ports of its own."""


def _own_ports() -> int:
    """The first of the ports of this process, which no other process that asks here has.

    The claim is a socket with an abstract name (unix(7)), which ends with its process; a network has one set.
    Without such names (not Linux), processes whose pids differ by a multiple of 110 have the same ports.
    """
    pid, blocks = os.getpid(), len(_PORTS) // _OWN
    if pid not in _firsts:
        block = pid % blocks
        with socket.socket(socket.AF_UNIX) as claim:
            for turn in range(blocks):
                with contextlib.suppress(OSError):
                    claim.bind(f"\0lockkit-ports-{(pid + turn) % blocks}")
                    block = (pid + turn) % blocks
                    claim.detach()  # to the end of the process
                    break
        _firsts[pid] = _PORTS.start + block * _OWN
    return _firsts[pid]


def scratch_folder(kind: str) -> Path:
    """A new folder that only this user can enter. Its path is short, because it contains sockets."""
    return Path(tempfile.mkdtemp(prefix=f"lockkit-{kind}-"))


def until(what: Callable[[], object], why: str = "what was waited for", seconds: float = PATIENCE) -> None:
    """Wait until ``what()`` is true, for conditions that no event announces.

    Raises:
        ServerFailed: The condition was not true in time.
    """
    end = time.monotonic() + seconds
    pause = itertools.chain([0.002, 0.005, 0.01], itertools.repeat(0.02))
    while not what():
        if time.monotonic() > end:
            raise ServerFailed(f"not within {seconds:g} s: {why}")
        time.sleep(next(pause))


class ServerProcess:
    """One program in a folder. The program and the folder go with this process, however this process ends.

    Attributes:
        folder: The working directory of the program.
        log: The file to which the program's output is appended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The program's process id.

        Raises:
            ServerFailed: The program is not running.
        """
        if self._running is None:
            raise ServerFailed(f"the server in {self.folder} is not running")
        return self._running.pid

    @property
    def alive(self) -> bool:
        """Whether the program is running."""
        return self._running is not None and self._running.poll() is None

    def start(self, command: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        """Start the program in the folder; output is appended to the log."""
        assert self._running is None, "the program is running"
        with self.log.open("ab") as log:
            # In a session of its own: a Ctrl-C at the terminal is for the tests, which then stop it.
            self._running = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _watch.add(self._running, self.folder)

    def stop(self, patience: float = 5.0) -> None:
        """End the program with SIGTERM, and with SIGKILL if that takes too long or the program is paused."""
        self._end(signal.SIGTERM, patience)

    def kill(self) -> None:
        """End the program with SIGKILL, as a crash or a power cut would."""
        self._end(signal.SIGKILL, PATIENCE)

    def signal(self, number: int) -> None:
        """Send the program a signal."""
        if self._running is not None:
            self._running.send_signal(number)

    def pause(self) -> None:
        """Stop the program without ending it (SIGSTOP). Returns when the last of its threads has stopped."""
        if self._running is None:
            return
        self._running.send_signal(signal.SIGSTOP)
        # Until the signal arrives the program may still answer. WNOWAIT leaves the status to others.
        # The server of the process that this one was forked from.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._running.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def remove(self) -> None:
        """End the program and remove the folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def last_words(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "(no log)"

    def _end(self, number: int, patience: float) -> None:
        running = self._running
        if running is None:
            return
        running.send_signal(number)
        try:
            running.wait(patience)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        self._running = None
        _watch.drop(running.pid)


class _Watch:
    """The servers that end with this process: ended by it, or by the minder if it was killed."""

    def __init__(self) -> None:
        self._servers: dict[int, tuple[subprocess.Popen[bytes], Path]] = {}
        self._minder: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._mutex = threading.Lock()

    def add(self, server: subprocess.Popen[bytes], folder: Path) -> None:
        with self._mutex:
            if self._owner != os.getpid():
                # The first server, or the first of a forked child, which leaves its parent's servers alone.
                self._servers, self._owner = {}, os.getpid()
                self._minder = self._hire()
                atexit.register(self._leave, self._owner)
            self._servers[server.pid] = server, folder
            self._tell(f"+{server.pid} {folder}\n")

    def drop(self, pid: int) -> None:
        with self._mutex:
            if self._owner == os.getpid() and pid in self._servers:
                del self._servers[pid]
                self._tell(f"-{pid}\n")

    def _hire(self) -> subprocess.Popen[bytes] | None:
        if not hasattr(os, "pidfd_open"):
            return None  # not Linux: a killed test process leaves its servers behind
        return subprocess.Popen(
            [sys.executable, "-I", "-S", minder.__file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        )

    def _tell(self, order: str) -> None:
        if self._minder is not None and self._minder.stdin is not None:
            self._minder.stdin.write(order.encode())
            self._minder.stdin.flush()

    def _leave(self, owner: int) -> None:
        if owner != os.getpid():
            return
        for server, _ in self._servers.values():
            server.kill()
        for server, folder in self._servers.values():
            server.wait()
            shutil.rmtree(folder, ignore_errors=True)
        if self._minder is not None:
            self._minder.communicate()


_watch = _Watch()
