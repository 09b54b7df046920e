"""Connect within a budget, however long the name server takes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    import ssl

__all__ = ["Place", "connect", "in_time", "is_address"]

C = TypeVar("C")

Place: TypeAlias = tuple[str, int] | str
"""Host and port, or the path of a socket."""
_LEAST = 0.005


def is_address(host: str) -> bool:
    """True if a host is an IP address, so that no name has to be resolved."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def connect(place: Place, tls: ssl.SSLContext | None, budget: float, thread: str) -> socket.socket:
    """Connect to a place, with TLS or without.

    Args:
        place: The place. TLS is not used on the path of a socket.
        tls: How to verify the server, and the client's certificate; None without TLS.
        budget: Seconds.
        thread: The name of the thread that connects, if a name has to be resolved.

    Raises:
        OSError: No connection was made in time.
    """
    end = time.monotonic() + max(budget, _LEAST)

    def made() -> socket.socket:
        error: OSError | None = None
        for family, address in _addresses(place):
            plain = _Socket(family, socket.SOCK_STREAM)
            try:
                plain.settimeout(max(end - time.monotonic(), _LEAST))
                plain.connect(address)
                if isinstance(place, str):
                    return plain
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                plain.settimeout(max(end - time.monotonic(), _LEAST))
                return plain if tls is None else tls.wrap_socket(plain, server_hostname=place[0])
            except OSError as failed:
                plain.close()
                error = failed
        raise error or OSError("the name has no address")

    if isinstance(place, str) or is_address(place[0]):
        return made()
    return in_time(made, socket.socket.close, end - time.monotonic(), thread)


class _Socket(socket.socket):
    """A socket that is closed without a warning if Ctrl-C strikes before anybody holds it."""

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # Ctrl-C may have struck before it was complete
            self.close()


def _addresses(place: Place) -> list[tuple[int, Any]]:
    if isinstance(place, str):
        return [(socket.AF_UNIX, place)]
    found = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def in_time(make: Callable[[], C], close: Callable[[C], object], budget: float, thread: str) -> C:
    """Make a connection on another thread, within a budget.

    The calling thread could not keep to the budget: resolving a name has no time limit, and each of its
    addresses may use up the budget.

    Args:
        make: Connects.
        close: Closes a connection that is made too late.
        budget: Seconds.
        thread: The name of the thread.

    Raises:
        TimeoutError: The budget is over. A connection that is made later is closed.
    """
    # A plain lock: Ctrl-C can leave Condition and Event, which are written in Python, half done.
    done = threading.Lock()
    done.acquire()
    made: list[C | BaseException] = []
    waiting = [True]

    def run() -> None:
        try:
            made.append(make())
        except BaseException as error:
            made.append(error)
        done.release()
        if not waiting:
            close_made()

    def close_made() -> None:
        for each in made:
            if not isinstance(each, BaseException):
                close(each)

    try:
        threading.Thread(target=run, name=thread, daemon=True).start()
    except RuntimeError:  # no more threads can be started
        return make()
    try:
        if not done.acquire(timeout=max(budget, 0.0)):
            raise TimeoutError(f"no connection within {budget:.1f} s")
    except BaseException:
        waiting.clear()
        close_made()
        raise
    if isinstance(made[0], BaseException):
        raise made[0]
    return made[0]
