"""One connection: packed commands out, replies in, each before an end.

The parser is hiredis, which redis-py uses too. What redis-py does beside parsing costs as much as a command.

A call that awaits one reply stays awake for it for a moment (see :mod:`lockkit.store.awake`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

import redis.exceptions as theirs
from hiredis import Reader

from lockkit.store.awake import Awake, make_way
from lockkit.store.connections import Timed
from lockkit_redis.private import error_of

__all__ = ["TIME", "Connection", "Parser", "framed", "millis_of", "pack"]

_MORE = object()
_BLOCK = 65_536
_ANSWER = 4_096
"""Bytes to read where one reply is awaited: a large buffer takes longer to get than a short reply to read."""
_USUAL = 32
"""The length of a token, the most frequent word."""


def pack(*words: str | bytes | int) -> bytes:
    """A command in the protocol of Redis (RESP)."""
    pieces = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        pieces.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(pieces)


def framed(word: str) -> bytes:
    """One word of a command, whatever characters are in it."""
    raw = word.encode()
    return (b"$32\r\n" if len(raw) == _USUAL else b"$%d\r\n" % len(raw)) + raw + b"\r\n"


TIME = pack("TIME")


def millis_of(clock: Sequence[Any]) -> int:
    """A reply to TIME, as milliseconds since the epoch."""
    return int(clock[0]) * 1000 + int(clock[1]) // 1000


def _reader() -> Reader:
    return Reader(protocolError=theirs.InvalidResponse, replyError=error_of, notEnoughData=_MORE)


def _complete(reader: Reader) -> list[Any]:
    """The replies that are complete."""
    replies: list[Any] = []
    while (reply := reader.gets()) is not _MORE:
        replies.append(reply)
    return replies


class Parser:
    """See :class:`lockkit.store.exchanges.Parser`. Returns an error reply as redis-py's exception."""

    def __init__(self) -> None:
        self._reader = _reader()

    def feed(self, data: bytes) -> Sequence[Any]:
        """See :class:`lockkit.store.exchanges.Parser`."""
        self._reader.feed(data)
        return _complete(self._reader)

    @property
    def between(self) -> bool:
        """See :class:`lockkit.store.exchanges.Parser`."""
        return not self._reader.has_data()

    def cut_short(self, replies: Sequence[Any], error: OSError) -> Exception:
        """See :class:`lockkit.store.exchanges.Parser`."""
        return _told(replies) or error


class Connection(Timed):
    """A connection, used by one call at a time. Returns an error reply as redis-py's exception.

    Each call gives up when ``time.monotonic()`` is at ``end``.

    Args:
        connected: The socket.
    """

    __slots__ = ("_awake", "_reader")

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected)
        self._awake = Awake(ever=not self._encrypted)
        self._reader = _reader()

    def exchange(self, packed: bytes, end: float, replies: int) -> Sequence[Any]:
        """Send commands and return their replies.

        Raises:
            OSError, redis.exceptions.RedisError: Not all replies come in time (TimeoutError). If the server
                said why before it hung up, that is the error.
        """
        self.send(packed, end)
        gets = self._reader.gets
        if replies == 1:
            until = self._awake.until()
            if not until or not self._heard_before(until):
                self._reader.feed(self.receive(end))  # there was nothing to read before the request
            reply = gets()
            return (self.hear(end) if reply is _MORE else reply,)
        heard: list[Any] = []
        try:
            for _ in range(replies):
                reply = gets()
                heard.append(self.hear(end) if reply is _MORE else reply)
        except OSError:
            _raise_if_told(heard)
            raise
        return heard

    introduce = exchange

    def _heard_before(self, until: float) -> bool:
        """Stay awake until a time, and read what comes. Returns whether anything came."""
        in_vain = False
        try:
            while time.monotonic() < until:
                try:
                    self._feed(os.read(self._socket.fileno(), _ANSWER))
                except BlockingIOError:
                    make_way()
                    continue
                return True
            in_vain = True
            return False
        finally:
            self._awake.over(in_vain=in_vain)

    def _not_sent(self, end: float) -> None:
        """Raise what a server that has hung up has said before (an alert of TLS, too many clients)."""
        _raise_if_told((self.hear(end),))

    def hear(self, end: float) -> Any:
        """The next reply.

        Raises:
            OSError, redis.exceptions.RedisError: It does not come in time (TimeoutError), or never will.
        """
        reader = self._reader
        while (reply := reader.gets()) is _MORE:
            reader.feed(self.receive(end))
        return reply

    def _feed(self, block: bytes) -> None:
        if not block:
            raise ConnectionError("the server has closed the connection")
        self._reader.feed(block)

    def said(self) -> list[Any]:
        """Return the replies that have come by now, without waiting for more.

        Raises:
            OSError, redis.exceptions.RedisError: The connection has ended.
        """
        if self._allowed != 0.0:
            self._allowed = 0.0
            self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            self._feed(self._socket.recv(_BLOCK))
        return _complete(self._reader)


def _told(heard: Sequence[Any]) -> theirs.RedisError | None:
    """The first error among the replies of a server that has hung up."""
    return next((reply for reply in heard if isinstance(reply, theirs.RedisError)), None)


def _raise_if_told(heard: Sequence[Any]) -> None:
    if told := _told(heard):
        raise told from None
