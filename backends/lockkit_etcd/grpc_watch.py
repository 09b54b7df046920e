"""All watches of a transport on one stream of gRPC.

A connection takes only so many calls at a time (250 over TLS), which watches of their own would use up. Requests to
watch are answered in their order, which tells whose an answer is: the generated code cannot choose the ids itself. The
stream begins with the first watch and ends with the last.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from lockkit.store.spi import Refused, Unknown
from lockkit_etcd.grpc_endpoint import Endpoint
from lockkit_etcd.grpc_forks import gate
from lockkit_etcd.grpc_messages import Messages
from lockkit_etcd.transport import News, Watched, WatchEnded

__all__ = ["Watching"]

_log = logging.getLogger("lockkit.etcd")
_OPENING = 2.0
_CLOSING = 1.0
_EXPIRED = "invalid auth token"


class _Watch:
    """One watch. It is asked for, then it has an id, then it is over."""

    __slots__ = ("_heard", "closed", "id", "stream")

    def __init__(self, stream: _Stream, heard: Callable[[News], None]) -> None:
        self.stream = stream
        self.closed = False
        self.id: int | None = None
        self._heard = heard

    def close(self) -> None:
        """See :class:`lockkit_etcd.transport.Stream`."""
        if self.stream.pid == os.getpid():  # else it is the parent's
            self.stream.drop(self)

    def tell(self, news: News) -> None:
        """Tell it, unless it was closed."""
        if self.closed:
            return
        try:
            self._heard(news)
        except Exception:
            _log.exception("a watch could not be told its news")


class _Stream:
    """One stream, and the thread that reads it."""

    def __init__(self, ready: Callable[[float], Endpoint], messages: Messages) -> None:
        self._ready = ready
        self._messages = messages
        self._mutex = threading.Lock()
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._asked: deque[_Watch] = deque()
        self._running: dict[int, _Watch] = {}
        self._over = False
        self.pid = os.getpid()
        self._call: Any = None
        self._cut = ""
        self.thread = threading.Thread(target=self._run, name="lockkit-etcd-watch", daemon=True)

    def add(self, request: Any, heard: Callable[[News], None]) -> _Watch | None:
        """One more; None if it is over."""
        with self._mutex:
            if self._over:
                return None
            watch = _Watch(self, heard)
            self._asked.append(watch)
            self._requests.put(request)
            return watch

    def drop(self, watch: _Watch) -> None:
        """One less."""
        with self._mutex:
            if watch.closed:
                return
            watch.closed = True
            if watch.id is not None and watch.id in self._running:
                del self._running[watch.id]
                self._requests.put(self._messages.cancel(watch.id))
            last = not self._running and all(each.closed for each in self._asked)
            self._over = self._over or last  # nobody may come in between
        if last:
            self.end()

    def end(self) -> None:
        """End it, without a word to those who watch."""
        with self._mutex:
            self._over = True
            for each in (*self._asked, *self._running.values()):
                each.closed = True
            self._requests.put(None)
        self.cut("closed")

    def cut(self, why: str) -> None:
        """End it; those who watch are told why."""
        self._cut = why
        if self._call is not None:
            self._call.cancel()
            self._requests.put(None)

    def join(self) -> None:
        """Wait for its thread."""
        if self.thread is not threading.current_thread() and self.thread.is_alive():
            self.thread.join(_CLOSING)

    @property
    def begun(self) -> bool:
        """Whether there is a call."""
        return self._call is not None

    def _begun(self, call: Any) -> None:
        self._call = call
        if self._cut:
            call.cancel()

    def _run(self) -> None:
        try:
            ended = WatchEnded(self._listen())
        except (Refused, Unknown) as trouble:
            ended = WatchEnded(str(trouble))
        except BaseException as error:
            _log.exception("a stream of watches failed")
            ended = WatchEnded(repr(error))
        with self._mutex:
            self._over = True
            left = [*self._asked, *self._running.values()]
            self._requests.put(None)
        for each in left:
            each.tell(ended)

    def _listen(self) -> str:
        """Until it ends: why."""
        endpoint = self._ready(time.monotonic() + _OPENING)
        requests = iter(self._requests.get, None)
        call = endpoint.listen("watch", requests, time.monotonic() + _OPENING, self._begun)
        try:
            for answer in call:
                self._take(answer, endpoint)
        except Exception as error:
            if self._cut:
                return self._cut
            return str(endpoint.failed(error))
        return "the server has ended it"

    def _take(self, answer: Any, endpoint: Endpoint) -> None:
        watch: _Watch | None
        with self._mutex:
            if answer.created and self._asked:
                watch = self._asked.popleft()
                if not answer.canceled:
                    watch.id = answer.watch_id
                    if watch.closed:
                        self._requests.put(self._messages.cancel(answer.watch_id))
                    else:
                        self._running[answer.watch_id] = watch
            elif answer.canceled:
                watch = self._running.get(answer.watch_id)
                self._running.pop(answer.watch_id, None)
            else:
                watch = self._running.get(answer.watch_id)
        if watch is None:
            return
        if answer.canceled:
            if _EXPIRED in answer.cancel_reason:
                endpoint.forget()
            why = answer.cancel_reason or (
                "its start was compacted" if answer.compact_revision else "cancelled"
            )
            watch.tell(WatchEnded(why, answer.compact_revision))
            self.drop(watch)
        else:
            watch.tell(Watched(answer.header.revision, self._messages.changes(answer)))


class _Several:
    """Watches that are one to whoever is told: the first that ends ends all."""

    def __init__(self, heard: Callable[[News], None]) -> None:
        self._heard = heard
        self._watches: list[_Watch] = []
        self._over = False

    def add(self, watch: _Watch) -> None:
        """One more."""
        self._watches.append(watch)
        if self._over:
            watch.close()

    def tell(self, news: News) -> None:
        """Tell it, unless all are over."""
        if self._over:
            return
        if isinstance(news, WatchEnded):
            self.close()
        self._heard(news)

    def close(self) -> None:
        """See :class:`lockkit_etcd.transport.Stream`."""
        self._over = True
        for watch in list(self._watches):
            watch.close()


class Watching:
    """The watches of a transport.

    Args:
        ready: Finds a member that answers, until ``time.monotonic()`` is at its argument.
    """

    def __init__(self, ready: Callable[[float], Endpoint], messages: Messages) -> None:
        self._ready = ready
        self._messages = messages
        self._mutex = threading.Lock()
        self._stream: _Stream | None = None
        gate.closes(self)

    def watch(
        self, key: bytes, end: bytes, start: int, heard: Callable[[News], None], also: Sequence[bytes] = ()
    ) -> _Watch | _Several:
        """See :class:`lockkit_etcd.transport.Transport`."""
        if not also:
            return self._one(key, end, start, heard)
        several = _Several(heard)
        for each, until in ((key, end), *((other, b"") for other in also)):
            several.add(self._one(each, until, start, several.tell))
        return several

    def _one(self, key: bytes, end: bytes, start: int, heard: Callable[[News], None]) -> _Watch:
        request = self._messages.watch(key, end, start)
        with self._mutex:
            watch = self._stream.add(request, heard) if self._stream else None
            if watch is None:
                self._stream = stream = _Stream(self._ready, self._messages)
                watch = stream.add(request, heard)
                assert watch is not None
                try:
                    stream.thread.start()
                except RuntimeError:  # there can be no more threads: waiters poll
                    stream.end()
            return watch

    def close(self) -> None:
        """End all of them."""
        with self._mutex:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.end()
            stream.join()

    def let_go(self) -> None:
        """End the stream, before a fork; those who watch open another."""
        stream = self._stream
        if stream is not None and stream.pid == os.getpid() and stream.begun:
            stream.cut("this process has forked")
            stream.join()
