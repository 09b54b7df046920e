"""A watch over the gateway: one connection, whose reply does not end.

The gateway starts a watch only when the request body is complete, so each watch has a connection of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lockkit.store.log import Log
from lockkit.store.spi import Refused, Unknown
from lockkit.store.starting import start
from lockkit_etcd.gateway_http import Connection, Parser
from lockkit_etcd.gateway_json import watch_message
from lockkit_etcd.transport import News, Watched, WatchEnded

__all__ = ["GatewayStream"]

_log = Log("lockkit.etcd")
_OPENING = 2.0
_BLOCK = 4096
"""Bytes that are read at once. A watch waits for most of its life, and this much memory with it."""
_NEVER = float("inf")


class GatewayStream:
    """One running watch, with a thread of its own.

    Args:
        opened: Connects and sends the request, until an end.
        heard: Called with the news.
        over: Called with this stream when it is over.
    """

    def __init__(
        self,
        opened: Callable[[float], Connection],
        heard: Callable[[News], None],
        over: Callable[[GatewayStream], None],
    ) -> None:
        self._opened = opened
        self._heard = heard
        self._over = over
        self._closed = False
        self._connection: Connection | None = None

    def start(self) -> None:
        """Begin."""
        try:
            start(self._run, "lockkit-etcd-watch")
        except RuntimeError:  # the process can start no more threads: waiters poll
            self._over(self)

    def close(self) -> None:
        """See :class:`lockkit_etcd.transport.Stream`."""
        self._closed = True
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def _run(self) -> None:
        try:
            ended = self._listen()
        except (Refused, Unknown, OSError, ValueError, KeyError) as trouble:
            ended = WatchEnded(str(trouble))
        except BaseException as error:
            _log.exception("a watch failed")
            ended = WatchEnded(repr(error))
        finally:
            self._over(self)
            if self._connection is not None:
                self._connection.close()
        if not self._closed:
            self._heard(ended)

    def _listen(self) -> WatchEnded:
        self._connection = connection = self._opened(time.monotonic() + _OPENING)
        parser, rest = Parser(), b""
        end = time.monotonic() + _OPENING
        while not self._closed:  # close() may have come before there was a connection to interrupt
            whole = parser.feed(connection.receive(_NEVER if parser.status else end, _BLOCK))
            *texts, rest = (rest + (whole[0].body if whole else parser.taken())).split(b"\n")
            if whole and rest:  # an error that is no stream has no newline at its end
                texts.append(rest)
            status = whole[0].status if whole else parser.status
            for text in filter(None, texts):
                told = watch_message(text).result
                if told is None or status != 200:
                    return WatchEnded(text[:200].decode(errors="replace"))
                if told.canceled:
                    return WatchEnded(told.cancel_reason or "cancelled", told.compact_revision)
                if not self._closed:
                    self._heard(Watched(told.header.revision, told.events))
            if whole:
                return WatchEnded("the server has ended the watch")
        return WatchEnded("closed")
