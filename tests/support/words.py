"""A protocol of one word per request and reply, for tests of what performs exchanges: server and parser."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ssl import SSLContext
from types import SimpleNamespace
from typing import Any

from lockkit.errors import BackendUnavailable
from lockkit.store.exchanges import Connect, Exchange, Introduce, Route, Send
from lockkit.store.spi import Refused

__all__ = ["Parser", "opened", "said", "serving", "soon"]


@contextmanager
def serving(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> Iterator[SimpleNamespace]:
    """A server that says each word back, counts its connections, and knows four words.

    After "hush" silence; after "bye" it hangs up; "unasked" comes back twice, "slow" once ``gate`` is set.
    """
    listening = socket.create_server(address, family=family)
    heard: list[bytes] = []
    talking: list[threading.Thread] = []
    resets: list[BaseException] = []
    gate = threading.Event()

    def talk(client: socket.socket, known: threading.Event) -> None:
        known.wait()
        with client, suppress(BrokenPipeError), client.makefile("rb") as words:
            try:
                for word in words:
                    heard.append(word.strip())
                    if word == b"bye\n":
                        break
                    if word == b"slow\n":
                        gate.wait(30)
                    if word != b"hush\n":
                        client.sendall(word * (1 + (word == b"unasked\n")))
            except ConnectionResetError as reset:
                resets.append(reset)

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            known = threading.Event()
            thread = threading.Thread(target=talk, args=(client, known))
            thread.start()
            talking.append(thread)  # only now, so that whoever finds it may join it
            known.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield SimpleNamespace(
            place=listening.getsockname(),
            heard=heard,
            connections=talking,
            resets=resets,
            gate=gate,
        )
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
        for each in talking:
            each.join(30)


def soon() -> float:
    """An end that is far enough away."""
    return time.monotonic() + 30.0


def opened(route: Any, end: float) -> Exchange[Any]:
    """Open a connection: each begins with a word."""
    try:
        connection = yield Connect(route, end)
        yield Introduce(connection, b"hello\n", end)
    except OSError as error:
        raise Refused(BackendUnavailable(f"no connection: {error}", hint="")) from error
    return connection


def said(route: Route, *words: bytes, keep: Any = None, end: float | None = None) -> Exchange[Any]:
    """Say words in one request, and hear as many replies."""
    packed = b"".join(word + b"\n" for word in words)
    return (yield Send(route, packed, soon() if end is None else end, len(words), keep))


class Parser:
    """The parser of the replies, and all that a performer on an event loop needs of a store's exchanges."""

    tls: SSLContext | None = None
    opening = staticmethod(opened)

    def __init__(self) -> None:
        self._rest = b""

    def parser(self) -> Parser:
        """See :class:`lockkit.store.spi.Exchanges`."""
        return Parser()

    @property
    def between(self) -> bool:
        """See :class:`lockkit.store.exchanges.Parser`."""
        return not self._rest

    def feed(self, data: bytes) -> Sequence[bytes]:
        """See :class:`lockkit.store.exchanges.Parser`."""
        *words, self._rest = (self._rest + data).split(b"\n")
        return words

    def cut_short(self, replies: Sequence[bytes], error: OSError) -> Exception:
        """See :class:`lockkit.store.exchanges.Parser`."""
        return RuntimeError(*replies) if replies else error
