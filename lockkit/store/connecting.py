"""Connect within a budget, however long the name server takes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import ssl

__all__ = ["connected", "in_time", "is_address"]

_LEAST = 0.005

C = TypeVar("C")


def is_address(host: str) -> bool:
    """True if a host is an IP address, so that no name has to be resolved."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def in_time(make: Callable[[], C], close: Callable[[C], object], budget: float, thread: str) -> C:
    """Make a connection on another thread, within a budget.

    The call itself could not keep the budget: the time to resolve a name cannot be limited, and each address of the name may use up
    the budget.

    Args:
        make: Connects.
        close: Closes a connection that is made too late.
        budget: Seconds.
        thread: The name of the thread.

    Raises:
        TimeoutError: The budget is over. A connection that is made later is closed.
    """
    done = (
        threading.Lock()
    )  # a plain lock: Ctrl-C can leave Condition and Event, which are written in Python, half done
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


def connected(host: str, port: int, tls: ssl.SSLContext | None, budget: float) -> socket.socket:
    """A socket that is connected, over TLS if there is a context for it, and does not hold small requests back.

    Raises:
        OSError: There is none to be had in time.
    """
    end = time.monotonic() + budget
    plain = socket.create_connection((host, port), timeout=max(budget, _LEAST))
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            return plain
        plain.settimeout(max(end - time.monotonic(), _LEAST))
        return tls.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise
