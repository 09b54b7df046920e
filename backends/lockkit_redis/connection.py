"""One connection: packed commands out, replies in, each before an end.

redis-py makes it (addresses, TLS, certificates). What it would then do for each command costs as much as the command
itself, so from there on the talking is done here, with the parser that redis-py uses too.

A lone call stays awake for a moment. A server on this host answers in less time than it takes to put a thread to sleep and
to wake it, which is half of what a lock costs then. Where answers take longer that is soon found out, and hardly tried again.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import redis.exceptions as theirs
from hiredis import Reader

from lockkit.store.connections import Timed
from lockkit_redis.private import error_of, taken_socket

__all__ = ["TIME", "Connection", "framed", "millis_of", "pack"]

_BLOCK = 65_536
_ANSWER = 4_096
"""Bytes to read where one answer is awaited: a large buffer takes longer to get than a short answer to read."""
_USUAL = 32
"""The length of a token."""
_MORE = object()
_AWAKE = 0.0001
"""Seconds for which a lone call reads without going to sleep."""
_MOST_ASLEEP = 255
"""Most calls that go to sleep at once after one that stayed awake in vain."""
_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_make_way = getattr(os, "sched_yield", lambda: None)
_awake = SimpleNamespace(until=0.0)
"""Until when a thread of this process stays awake: others would only take the interpreter from it. A time and no lock, which
Ctrl-C or a fork at the wrong moment would leave taken for good."""


def pack(*words: str | bytes | int) -> bytes:
    """A command in the protocol of Redis (RESP)."""
    pieces = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        pieces.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(pieces)


def framed(token: str) -> bytes:
    """A token as a word of a command; whatever is in it, it is no more than that."""
    raw = token.encode()
    return (b"$32\r\n" if len(raw) == _USUAL else b"$%d\r\n" % len(raw)) + raw + b"\r\n"


TIME = pack("TIME")


def millis_of(clock: Sequence[Any]) -> int:
    """An answer to TIME, as milliseconds since the epoch."""
    return int(clock[0]) * 1000 + int(clock[1]) // 1000


class Connection(Timed):
    """A connection. An error reply is an answer like any other: redis-py's exception.

    Args:
        connection: One of redis-py's connection objects, just connected; it is stripped of its socket.

    Attributes:
        server: The pool that lent this connection.
    """

    __slots__ = ("_asleep", "_in_vain", "_reader", "server")

    def __init__(self, connection: Any) -> None:
        super().__init__(taken_socket(connection))
        alone = _PROCESSORS < 2 or isinstance(self._socket, ssl.SSLSocket)
        self._asleep = sys.maxsize if alone else 0
        self._in_vain = 0
        self.server: object = None
        self._reader = Reader(
            protocolError=theirs.InvalidResponse,
            replyError=error_of(connection),
            notEnoughData=_MORE,
        )

    # Each of these gives up when ``time.monotonic()`` is at ``end``.

    def ask(self, packed: bytes, end: float) -> Any:
        """Send one command and return its answer.

        Raises:
            OSError, redis.exceptions.RedisError: There is no answer, or none in time (TimeoutError).
        """
        self.send(packed, end)
        if self._asleep > 0:
            self._asleep -= 1
        else:
            now = time.monotonic()
            if now >= _awake.until:
                _awake.until = now + _AWAKE
                try:
                    self._stay_awake(_awake.until)
                finally:
                    _awake.until = 0.0
        return self.hear(end)

    def _stay_awake(self, until: float) -> None:
        """Read until something comes, or a moment is over."""
        while time.monotonic() < until:
            try:
                self._feed(os.read(self._socket.fileno(), _ANSWER))
            except BlockingIOError:
                _make_way()  # the server may need this processor
                continue
            self._in_vain = 0
            return
        self._asleep = self._in_vain = min(2 * self._in_vain + 1, _MOST_ASLEEP)

    def row(self, packed: bytes, end: float, count: int) -> list[Any]:
        """Send ``count`` commands and return their answers.

        Raises:
            OSError, redis.exceptions.RedisError: Not all answers come in time (TimeoutError).
        """
        self.send(packed, end)
        gets = self._reader.gets
        answers: list[Any] = []
        for _ in range(count):
            answer = gets()
            answers.append(self.hear(end) if answer is _MORE else answer)
        return answers

    def send(self, packed: bytes, end: float) -> None:
        """Send commands whose answers are to be heard.

        Raises:
            OSError: They could not be sent in time.
        """
        if len(packed) > _BLOCK:  # a long send takes its time, and cannot continue after a timeout
            self._allowed = -1.0
        self._until(end)
        self._socket.sendall(packed)

    def begin(self, packed: bytes, end: float) -> None:
        """Send the first commands. Who has hung up by then may have said why (an alert of TLS, too many clients): that is raised.

        Raises:
            OSError, redis.exceptions.RedisError: They could not be sent in time.
        """
        try:
            self.send(packed, end)
        except OSError:
            why = self.hear(end)
            if isinstance(why, theirs.RedisError):
                raise why from None
            raise

    def hear(self, end: float) -> Any:
        """The next answer.

        Raises:
            OSError, redis.exceptions.RedisError: It does not come in time (TimeoutError), or never will.
        """
        reader = self._reader
        answer = reader.gets()
        while answer is _MORE:
            self._until(end)
            try:
                block = self._socket.recv(_BLOCK)
            except TimeoutError:  # the socket's timeout may be shorter than the budget
                continue
            self._feed(block)
            answer = reader.gets()
        return answer

    def _feed(self, block: bytes) -> None:
        if not block:
            raise theirs.ConnectionError("the server has closed the connection")
        self._reader.feed(block)

    def said(self) -> list[Any]:
        """Return the answers that have come by now, without waiting for more.

        Raises:
            OSError, redis.exceptions.RedisError: The connection has ended.
        """
        if self._allowed != 0.0:
            self._allowed = 0.0
            self._socket.setblocking(False)
        try:
            self._feed(self._socket.recv(_BLOCK))
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        answers: list[Any] = []
        while (answer := self._reader.gets()) is not _MORE:
            answers.append(answer)
        return answers
