"""All watches of a transport on one stream of gRPC.

A connection takes only so many calls at a time (250 over TLS), and watches on streams of their own would use
them up. The generated code cannot choose a watch's id, but requests are answered in order: the first answer
that names a new watch belongs to the first unanswered request. The stream starts with the first watch and
ends a moment after the last, because starting one takes a client longer than a hand-off.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from lockkit.lib.origin import this_origin
from lockkit.store.log import Log
from lockkit.store.spi import Refused, Unknown
from lockkit.store.starting import OneThread, join
from lockkit_etcd.transport import News, Watched, WatchEnded
from lockkit_etcd3.endpoint import Endpoint
from lockkit_etcd3.forks import gate
from lockkit_etcd3.messages import Messages, changes
from lockkit_etcd3.off_main_thread import call_off_main_thread, end_off_main_thread

__all__ = ["Watching"]

_log = Log("lockkit.etcd")
_OPENING = 2.0
_CLOSING = 1.0
_KEPT = 2.0
"""Seconds for which a stream without a watch is kept."""
_EXPIRED = "invalid auth token"


class _Watch:
    """One watch: one request, or one for each range of keys.

    Attributes:
        stream: The stream; None for none yet.
        ids: The ids under which the member has answered so far.
    """

    __slots__ = ("_heard", "closed", "ids", "stream")

    def __init__(self, heard: Callable[[News], None]) -> None:
        self.stream: _Stream | None = None
        self._heard = heard
        self.closed = False
        self.ids: set[int] = set()

    def close(self) -> None:
        """See :class:`lockkit_etcd.transport.Stream`."""
        self.closed = True  # if it has no stream yet, that looks at this
        stream = self.stream
        if stream is not None and stream.origin.is_here():  # a forked child leaves its parent's stream alone
            end_off_main_thread(lambda: stream.drop(self), _CLOSING)

    def tell(self, news: News) -> None:
        """Pass news on, unless the watch is closed."""
        if self.closed:
            return
        try:
            self._heard(news)
        except Exception:
            _log.exception("an event could not be handed to a watch")


class _Stream:
    """One stream, and the thread that reads it."""

    def __init__(self, ready: Callable[[float], Endpoint], messages: Messages) -> None:
        self._ready = ready
        self._messages = messages
        self._mutex = threading.Lock()
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._asked: deque[_Watch] = deque()  # one entry for each request without an answer
        self._running: dict[int, _Watch] = {}
        self._over = False
        self.origin = this_origin()
        self._call: Any = None
        self._cut = ""
        self._reader = OneThread(self._run, "lockkit-etcd-watch")
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. A second call does no harm: a signal handler may have cut the first one short."""
        try:
            if self._thread is None:
                self._reader.start()
        except RuntimeError:  # the process can start no more threads: waiters poll
            self.end()

    def add(self, watch: _Watch, requests: Sequence[Any]) -> bool:
        """Add a watch; False if the stream is over."""
        with self._mutex:
            if not self._over:
                watch.stream = self
                for request in requests:
                    self._asked.append(watch)
                    self._requests.put(request)
            return not self._over

    def drop(self, watch: _Watch) -> None:
        """Remove a watch."""
        with self._mutex:
            watch.closed = True
            for each in watch.ids & self._running.keys():
                del self._running[each]
                self._requests.put(self._messages.cancel(each))

    def end(self) -> None:
        """End the stream without telling its watches."""
        with self._mutex:
            self._over = True
            for each in (*self._asked, *self._running.values()):
                each.closed = True
            self._requests.put(None)
        self.cut("closed")

    def cut(self, why: str) -> None:
        """End the stream, and report why to its watches."""
        self._cut = why
        if self._call is not None:
            end_off_main_thread(self._call.cancel, _CLOSING)
            self._requests.put(None)

    def join(self) -> None:
        """Wait for the thread."""
        join(self._thread, _CLOSING)

    @property
    def begun(self) -> bool:
        """Whether there is a call."""
        return self._call is not None

    def _begin(self, call: Any) -> None:
        self._call = call
        if self._cut:
            call.cancel()

    def _to_send(self) -> Iterator[Any]:
        """Yield the requests as they come; end the stream after a moment without requests and watches."""
        while True:
            try:
                request = self._requests.get(timeout=_KEPT)
            except Empty:
                if self._idle():
                    break
                continue
            if request is None:
                return
            yield request
        self.cut("nobody watches")

    def _idle(self) -> bool:
        """Whether there is no watch; if so, none can be added any more."""
        with self._mutex:
            if not self._running and all(each.closed for each in self._asked):
                self._over = True  # under the mutex, so that no watch is added in between
            return self._over

    def _run(self) -> None:
        self._thread = threading.current_thread()
        if self._over:
            return
        try:
            ended = WatchEnded(self._listen())
        except (Refused, Unknown) as trouble:
            ended = WatchEnded(str(trouble))
        except BaseException as error:
            _log.exception("a stream of watches failed")
            ended = WatchEnded(repr(error))
        with self._mutex:
            self._over = True
            left = dict.fromkeys((*self._asked, *self._running.values()))
            self._requests.put(None)
        for each in left:
            each.tell(ended)

    def _listen(self) -> str:
        """Read the stream until it ends, and return why it did."""
        endpoint = self._ready(_OPENING)
        call = endpoint.listen("watch", self._to_send(), time.monotonic() + _OPENING, self._begin)
        try:
            for answer in call:
                self._take(answer, endpoint)
        except Exception as error:
            return self._cut or str(endpoint.failed(error))
        return "the server has ended the stream"

    def _take(self, answer: Any, endpoint: Endpoint) -> None:
        with self._mutex:
            watch = self._of(answer)
        if watch is None:
            return
        if not answer.canceled:
            watch.tell(Watched(answer.header.revision, changes(answer)))
            return
        if _EXPIRED in answer.cancel_reason:
            endpoint.token = None
        why = answer.cancel_reason or ("its start was compacted" if answer.compact_revision else "cancelled")
        watch.tell(WatchEnded(why, answer.compact_revision))
        self.drop(watch)

    def _of(self, answer: Any) -> _Watch | None:
        """The watch that an answer is for."""
        if answer.created and self._asked:
            watch = self._asked.popleft()
            if not answer.canceled and watch.closed:
                self._requests.put(self._messages.cancel(answer.watch_id))
            elif not answer.canceled:
                watch.ids.add(answer.watch_id)
                self._running[answer.watch_id] = watch
            return watch
        if answer.canceled:
            return self._running.pop(answer.watch_id, None)
        return self._running.get(answer.watch_id)


class Watching:
    """The watches of a transport.

    Args:
        ready: Finds a member that answers, within so many seconds.
    """

    def __init__(self, ready: Callable[[float], Endpoint], messages: Messages) -> None:
        self._ready = ready
        self._messages = messages
        self._mutex = threading.Lock()
        self._stream: _Stream | None = None
        gate.closes(self)

    def watch(self, ranges: Sequence[tuple[bytes, bytes, int]], heard: Callable[[News], None]) -> _Watch:
        """Watch ranges of keys, each from a revision on. See :meth:`lockkit_etcd.cluster.Cluster.watch`."""
        requests = [self._messages.watch(*each) for each in ranges]
        watch = _Watch(heard)
        try:  # a handler may interrupt this and watch, too; requests must be in the order of the watches
            call_off_main_thread(lambda: self._add(watch, requests), threading.TIMEOUT_MAX)
        except BaseException:
            watch.close()
            raise
        return watch

    def _add(self, watch: _Watch, requests: Sequence[Any]) -> None:
        with self._mutex:
            if self._stream is None or not self._stream.add(watch, requests):
                self._stream = _Stream(self._ready, self._messages)
                self._stream.add(watch, requests)
            self._stream.start()

    def close(self) -> None:
        """End all of them."""
        with self._mutex:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.end()
            stream.join()

    def let_go(self) -> None:
        """End the stream before a fork. Each watch is notified, and its owner opens another if needed."""
        stream = self._stream
        if stream is not None and stream.origin.is_here() and stream.begun:
            stream.cut("this process has forked")
            stream.join()
