"""A private server: a program in a temporary folder, on loopback, which ends with the context."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar
from urllib.parse import quote

from lockkit.testing.processes import PATIENCE, ServerFailed, ServerProcess, scratch_folder, until
from support.servers.certificates import Certificates

__all__ = ["Member", "Server", "port_taken", "unsaid"]


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


P = TypeVar("P")


class Member(Server, Generic[P]):
    """A server that stays where it is through every restart, on its own or as one of a group.

    Starts when made. Whoever makes one of a group waits until it is ready.

    Attributes:
        place: The ports of the server, and its name in the group.
        certificates: With ``tls``, what clients need; None without.
    """

    place: P

    def __init__(
        self,
        kind: str,
        *,
        tls: bool,
        client_certificates: bool,
        place: P | None,
        among: Sequence[P],
        lines: Mapping[str, object],
    ) -> None:
        """Start one.

        Args:
            kind: For the name of its folder.
            tls: Clients must speak TLS.
            client_certificates: With ``tls``: and must show a certificate of its authority.
            place: Where it is, as one of a group; on its own it finds free ports.
            among: The places of all in the group.
            lines: Further lines of its configuration.
        """
        super().__init__(kind)
        self._data = self.folder / "data"
        self._client_certificates = client_certificates
        self._among = among
        self._lines = lines
        try:
            self.certificates = Certificates(self.folder) if tls else None
            if place is None:
                self._start_somewhere()
            else:
                self.place = place
                self._launch()
        except BaseException:
            self.close()
            raise

    def start(self, *, wait: bool = True) -> None:
        """Start it again where it was, with its data.

        Args:
            wait: Until it is ready, which one of a group without a majority never is.

        Raises:
            ServerFailed: The server did not start; somebody may have taken a port.
        """
        self._launch()
        if wait:
            self.until_ready()

    def restart(self, *, lose_data: bool) -> None:
        """Start a single server again on the same port, with its data or empty (but for its users)."""
        if lose_data:
            self.kill()
            shutil.rmtree(self._data, ignore_errors=True)
            self._first_launch()
        else:
            self.stop()
            self.start()

    def ready(self) -> bool:
        """Whether it answers what needs a majority."""
        raise NotImplementedError

    def until_ready(self, seconds: float = PATIENCE) -> None:
        """Wait until it is ready.

        Raises:
            ServerFailed: The server has ended, or is not ready in time.
        """
        try:
            until(lambda: not self.alive or self.ready(), f"the server at {self.address} is ready", seconds)
        except ServerFailed as error:
            raise ServerFailed(f"{error}:\n{self.log}") from None
        self._check_alive()

    def _check_alive(self) -> None:
        if not self.alive:
            self._process.kill()
            raise ServerFailed(f"the server at {self.address} did not start:\n{self.log}")

    def _url(self, scheme: str, user: str | None, password: str | None) -> str:
        """The URL of the server; the scheme ends in ``s`` for TLS. The URL does not name the TLS files."""
        login = "" if password is None else f"{quote(user or '', safe='')}:{quote(password, safe='')}@"
        return f"{scheme}{'s' if self.certificates else ''}://{login}{self.address}"

    def _launch(self) -> None:
        """Start its process at its place."""
        raise NotImplementedError

    def _first_launch(self) -> None:
        """Start it with nothing of its own, and wait until it is ready."""
        self._launch()
        self.until_ready()


def port_taken(log: str) -> bool:
    """Whether that is what a server complains of."""
    return "address already in use" in log.lower()


def unsaid(*prefixes: str) -> dict[str, str]:
    """Empty variables instead of those that would configure the program behind a test's back."""
    return {name: "" for name in os.environ if name.startswith(prefixes)}
