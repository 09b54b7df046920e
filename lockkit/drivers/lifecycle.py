"""The end of a process (exit, SIGTERM, the end of a child): its holds are released, and its waits end."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import sys
import threading
import time
import weakref
from operator import attrgetter, itemgetter, methodcaller
from traceback import walk_stack
from types import FrameType
from typing import Protocol

from lockkit.drivers.starting import start
from lockkit.errors import ConfigError
from lockkit.facts import Reason

__all__ = [
    "INSIDE_PATIENCE",
    "Engine",
    "at_exit",
    "await_the_end",
    "ending",
    "inside",
    "listening",
    "on_sigterm",
    "over",
    "wait_no_longer_than_the_interpreter",
]

EXIT_BUDGET = 0.5
"""Seconds that all clients of a process together may take to release, beyond their cleanup hooks, when it ends."""
_LOOK = 0.01
_LAST_WORDS = 0.1
"""Seconds of the exit budget that are kept for records and log lines about releases that the store did not confirm."""
_SIGTERM_BUDGET = 10.0
"""Seconds that releasing everything on SIGTERM may take before the process goes on to end."""
_INSIDE = re.compile(
    r"^lockkit(?:$|\.(?!(?:__main__|cli|decorator|drivers\.callbacks|testing)(?:\.|$)))", re.MULTILINE
)
"""Modules of ours, from which a store is called too, but for those that call the user's code, or are a whole program."""
INSIDE_PATIENCE = 0.2
"""Seconds for which a signal handler that interrupted a call of ours waits for work that may need that call to go on."""
_LAST = -100
"""Priority of the finalizer in a child of multiprocessing: after all others, as atexit comes after the threads' end."""


class Closable(Protocol):
    """A client, as far as a signal has to do with it."""

    def release_all(self, reason: Reason) -> None:
        """Release what this process holds; bounded."""


class Engine(Protocol):
    """A client's engine in one process."""

    pid: int

    def wake_all(self) -> None:
        """Have all waiting threads check whether they may go on waiting."""

    def begin_close(self, reason: Reason, budget: float) -> None:
        """Begin to release what it holds, in the background."""

    def await_close(self, longest: float) -> None:
        """Wait for that; ``longest`` does not count cleanup hooks."""


_engines: set[Engine] = set()
"""The engines that may hold something, also those of clients that were dropped or whose close() was cut short."""
_registered_by: int | None = None
_ending = _only_daemons = False
_listening = _behind_pools = False


def at_exit(engine: Engine) -> None:
    """Release what an engine holds when this process ends (not when a forked child does), unless it is :func:`over` by then."""
    global _registered_by  # noqa: PLW0603 (one registration for the process)
    _engines.add(engine)
    if _registered_by == os.getpid():
        return
    if _registered_by is None:
        atexit.register(_release_all, "exit")
    _registered_by = os.getpid()
    # Absent while another thread imports multiprocessing; a child of it has imported it before any code of ours runs.
    parent_process = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    if parent_process is not None and parent_process() is not None:
        from multiprocessing.util import (
            Finalize,
        )  # a child of multiprocessing ends by os._exit, which calls no atexit function

        Finalize(None, _end_of_child, exitpriority=_LAST)


def over(engine: Engine) -> None:
    """Forget an engine that holds nothing any more."""
    _engines.discard(engine)


def ending() -> bool:
    """Whether the interpreter is going down: the main thread is over, and whoever waits may wait no longer."""
    return _ending or (not _listening and not threading.main_thread().is_alive())


def await_the_end() -> None:
    """In a daemon thread whose wait was cancelled because the interpreter goes down: end with it, silently.

    The thread would print a traceback that means nothing to anybody, and one that CPython stops while it writes aborts the
    whole process ("could not acquire lock for stderr at interpreter shutdown"). Returns in a thread that is no daemon, and
    where threads that are none still run after a while: they may wait for this one.
    """
    if ending() and threading.current_thread().daemon:
        end = time.monotonic() + EXIT_BUDGET
        while _only_daemons or time.monotonic() < end:
            time.sleep(_LOOK)


def wait_no_longer_than_the_interpreter() -> None:
    """Have the end of the interpreter end all waits, because it joins every thread that is no daemon, and would join a waiting one for ever.

    To be called before a wait. Cheap.
    """
    global _ending, _listening, _behind_pools  # noqa: PLW0603 (one registration for the process)
    # The interpreter calls in reverse order, and concurrent.futures waits there for the threads of its pools. So where
    # that was imported after the first registration, another is needed to come before it.
    pools = hasattr(sys.modules.get("concurrent.futures.thread"), "ThreadPoolExecutor")
    if _listening and (_behind_pools or not pools):
        return
    register = getattr(threading, "_register_atexit", None)
    if register is None:  # ending() looks at the main thread instead
        return
    try:
        register(_end_waits)
    except RuntimeError:  # too late to register
        _ending = True
        return
    _listening, _behind_pools = True, pools


def listening() -> bool:
    """Whether waits are woken at the end; if not, they have to look at :func:`ending` from time to time."""
    return _listening


def _end_waits() -> None:
    global _ending  # noqa: PLW0603 (there is one interpreter)
    _ending = True
    for engine in _mine():
        with contextlib.suppress(Exception):
            engine.wake_all()


def _end_of_child() -> None:
    """End a child of multiprocessing as the interpreter ends by itself: end waits, join threads, release."""
    _end_waits()
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    _release_all("exit")


def _release_all(reason: Reason) -> None:
    """Close every engine. One Ctrl-C is kept for the end; a second one is the end."""
    interrupts: list[BaseException] = []
    for _ in (1, 2):  # without a call before the try, at which a signal could come
        try:
            _close_all(reason)
            break
        except BaseException as interrupt:
            interrupts.append(interrupt)
    if interrupts:
        raise interrupts[0]


def _close_all(reason: Reason) -> None:
    """Close every engine and wait for that. May be repeated: an engine closes once."""
    global _ending, _only_daemons  # noqa: PLW0603 (there is one interpreter)
    _ending = _only_daemons = True
    engines = _mine()
    end = time.monotonic() + EXIT_BUDGET
    for engine in engines:
        with contextlib.suppress(Exception):
            engine.begin_close(reason, EXIT_BUDGET - _LAST_WORDS)
    for engine in engines:
        with contextlib.suppress(Exception):
            engine.await_close(max(0.0, end - time.monotonic()))


def _mine() -> list[Engine]:
    return [engine for engine in list(_engines) if engine.pid == os.getpid()]


def on_sigterm(client: Closable) -> None:
    """Release what a client holds when SIGTERM arrives, then do what SIGTERM did before.

    Python's default for SIGTERM ends the process without running any ``finally``, so every deploy would leave locks to
    their ttl. The handler of before runs afterwards; if that was the default, the process ends by the signal.

    Raises:
        ConfigError: Not called from the main thread, which alone may install handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError('on_sigterm="release" needs the main thread', hint="connect there, or leave it out")
    previous = signal.getsignal(signal.SIGTERM)
    releasing = _Releasing(weakref.ref(client))

    def handle(number: int, frame: FrameType | None) -> None:
        if not releasing.over(frame):
            return  # it is not over yet; the signal comes again when it is
        if callable(previous):
            previous(number, frame)
        elif previous != signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, handle)


class _Releasing:
    """The release that a SIGTERM sets off, on a thread of its own and bounded.

    The handler runs between two bytecodes of the main thread. If it interrupted the user's code, it waits for the release,
    so that nothing runs unlocked. If it interrupted lockkit's code, that may be a critical section which the release needs:
    then the handler returns before long, and the signal is sent once more when the release is over.
    """

    def __init__(self, client: weakref.ref[Closable]) -> None:
        self._client = client
        self._pid = 0
        self._over = threading.Event()
        self._again = False

    def over(self, frame: FrameType | None) -> bool:
        """Begin if that is not done yet, and wait."""
        if self._pid != os.getpid():
            self._pid, self._over, self._again = os.getpid(), threading.Event(), False
            try:
                start(self._run, "lockkit-sigterm")
            except (
                RuntimeError
            ):  # no thread can be started: this one then, unless it may hold what the release needs
                if not inside(frame):
                    self._release()
                self._over.set()
        if not self._over.wait(INSIDE_PATIENCE if inside(frame) else _SIGTERM_BUDGET + 1.0):
            self._again = True
        return self._over.is_set()

    def _release(self) -> None:
        client = self._client()
        if client is not None:
            client.release_all("sigterm")

    def _run(self) -> None:
        thread = threading.Thread(target=self._release, name="lockkit-sigterm-release", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no second one
            self._release()
        else:
            thread.join(_SIGTERM_BUDGET)
        self._over.set()
        if self._again:
            os.kill(os.getpid(), signal.SIGTERM)


def inside(frame: FrameType | None) -> bool:
    """Whether a stack is somewhere in lockkit or a store, where critical sections are; not merely called from there."""
    if frame is None:
        return False
    # Few steps of our own, whatever the depth of the stack: a signal may come at each.
    modules = map(attrgetter("f_globals"), map(itemgetter(0), walk_stack(frame)))
    names = map(str, map(methodcaller("get", "__name__"), modules))
    return _INSIDE.search("\n".join(names)) is not None
