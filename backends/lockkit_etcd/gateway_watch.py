"""A watch over the gateway: one connection, whose answer does not end.

The gateway takes what is to be watched only in a body that is whole, so there is one connection for each watch.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from lockkit.store.spi import Refused, Unknown
from lockkit_etcd.gateway_connection import Connection
from lockkit_etcd.gateway_json import changes
from lockkit_etcd.transport import News, Watched, WatchEnded

__all__ = ["GatewayStream"]

_log = logging.getLogger("lockkit.etcd")
_OPENING = 2.0
_NEVER = float("inf")


class GatewayStream:
    """One running watch, with a thread of its own.

    Args:
        opened: Connects and sends the request; is given a budget.
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
            threading.Thread(target=self._run, name="lockkit-etcd-watch", daemon=True).start()
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
        self._connection = connection = self._opened(_OPENING)
        status, head = connection.head(time.monotonic() + _OPENING)
        for said in _documents(connection.body(head, _NEVER)):
            told = said.get("result")
            if status != 200 or told is None:
                return WatchEnded(str(said)[:200])
            if told.get("canceled"):
                return WatchEnded(
                    told.get("cancel_reason", "cancelled"), int(told.get("compact_revision", 0))
                )
            if self._closed:  # perhaps before there was a connection to interrupt
                return WatchEnded("closed")
            self._heard(Watched(int(told["header"].get("revision", 0)), changes(told.get("events", ()))))
        return WatchEnded("the server has ended it")


def _documents(pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """One document a line, wherever the pieces were cut; an error that is no stream has no line end."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for text in lines:
            if text:
                yield json.loads(text)
    if rest:
        yield json.loads(rest)
