"""A private server: a program in a temporary folder, on loopback, which ends with the context."""

from __future__ import annotations

import os
import signal
from types import TracebackType
from typing import Self

from lockkit.testing.processes import ServerFailed, ServerProcess, scratch_folder

__all__ = ["Server", "port_taken", "unsaid"]


class Server:
    """One server on 127.0.0.1; a context manager that ends it and removes its folder.

    Attributes:
        host: 127.0.0.1.
        folder: Where its files are.
        paused: Whether it stands still.
    """

    host = "127.0.0.1"

    def __init__(self, kind: str) -> None:
        """Make its folder; nothing runs yet."""
        self.folder = scratch_folder(kind)
        self.paused = False
        self._process = ServerProcess(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- where it is

    @property
    def port(self) -> int:
        """Where its clients find it, which stays the same through every restart."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.alive

    @property
    def log(self) -> str:
        """The end of what it has logged."""
        return self._process.last_words()

    # -- what happens to it

    def stop(self) -> None:
        """Shut it down (SIGTERM), or kill it if it does not. The folder stays."""
        self.resume()
        self._process.stop()

    def kill(self) -> None:
        """Let it crash."""
        self.paused = False
        self._process.kill()

    def pause(self) -> None:
        """Let it stand still: it accepts connections and answers nothing (SIGSTOP)."""
        self._process.pause()
        self.paused = True

    def resume(self) -> None:
        """Let it go on."""
        self._process.signal(signal.SIGCONT)
        self.paused = False

    def close(self) -> None:
        """End it and remove its folder."""
        self._process.remove()

    # -- how it starts

    def _begin(self) -> None:
        """Start it for the first time, on free ports of its own choice, and wait until it is ready."""
        raise NotImplementedError

    def _start_somewhere(self) -> None:
        for _ in range(10):
            try:
                self._begin()
                return
            except ServerFailed:
                self._process.kill()
                if not port_taken(self.log):  # by somebody who came between our look and its start
                    raise
                self._process.log.unlink()
        raise ServerFailed("no free port in ten attempts")


def port_taken(log: str) -> bool:
    """Whether that is what a server complains of."""
    return "address already in use" in log.lower()


def unsaid(*prefixes: str) -> dict[str, str]:
    """Empty variables instead of those that would configure the program behind a test's back."""
    return {name: "" for name in os.environ if name.startswith(prefixes)}
