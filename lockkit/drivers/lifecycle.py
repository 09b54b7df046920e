"""The end of a process (exit, SIGTERM, the end of a child): holds are released, and waits are cancelled."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import weakref
from itertools import filterfalse
from operator import attrgetter, itemgetter, methodcaller
from traceback import walk_stack
from types import FrameType
from typing import Protocol

from lockkit.errors import ConfigError
from lockkit.facts import Reason
from lockkit.lib.origin import Origin, this_origin
from lockkit.store.starting import start

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
"""Seconds that all clients of a process together may take to release at its end, beyond cleanup hooks."""
_LOOK = 0.01
_LAST_WORDS = 0.1
"""Seconds of the exit budget kept for records and log lines about releases that the store did not confirm."""
_SIGTERM_BUDGET = 10.0
"""Seconds that releasing everything on SIGTERM may take before the process ends."""
_FIRST = 1
"""The pid of the first process of a container."""
_OURS = "lockkit."
_CALLING = (
    "lockkit.__main__.",
    "lockkit.cli.",
    "lockkit.sync.decorator.",
    "lockkit.drivers.callbacks.",
    "lockkit.testing.",
)
"""lockkit's own modules that call user code or are separate programs, each with a trailing dot."""
INSIDE_PATIENCE = 0.2
"""Seconds that a handler which interrupted lockkit waits for work, which may need the interrupted call."""
_LAST = -100
"""Priority of the finalizer in a child of multiprocessing: last, as atexit functions run after threads."""


class Closable(Protocol):
    """The part of a client that a signal handler uses."""

    def release_all(self, reason: Reason) -> None:
        """Release all holds of this process, in a bounded time."""


class Engine(Protocol):
    """A client's engine in one process."""

    origin: Origin

    def wake_all(self) -> None:
        """Make all waiting threads check whether they may still wait."""

    def begin_close(self, reason: Reason, budget: float) -> None:
        """Begin to release all holds, in the background."""

    def await_close(self, longest: float) -> None:
        """Wait at most ``longest`` seconds, beyond cleanup hooks, until :meth:`begin_close` is done."""


_engines: set[Engine] = set()
"""The engines that may hold something, also of clients that were dropped or whose close() was interrupted."""
_registered_by: Origin | None = None
_ending = _only_daemons = False
_listening = _behind_pools = False


def at_exit(engine: Engine) -> None:
    """Release an engine's holds when this process ends, not a forked child; :func:`over` cancels that."""
    global _registered_by  # noqa: PLW0603 (one registration for the process)
    _engines.add(engine)
    if _registered_by is not None and _registered_by.is_here():
        return
    if _registered_by is None:
        atexit.register(_release_all, "exit")
    _registered_by = this_origin()
    # Missing while another thread imports it. A child of multiprocessing imports it before lockkit runs.
    parent_process = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    if parent_process is not None and parent_process() is not None:
        # A child of multiprocessing ends by os._exit, which calls no atexit function.
        from multiprocessing.util import Finalize

        Finalize(None, _end_of_child, exitpriority=_LAST)


def over(engine: Engine) -> None:
    """Forget an engine that holds nothing any more."""
    _engines.discard(engine)


def ending() -> bool:
    """Whether the interpreter is ending: the main thread is over, and no thread may wait any longer."""
    return _ending or (not _listening and not threading.main_thread().is_alive())


def await_the_end() -> None:
    """Block a daemon thread whose wait the end of the interpreter cancelled, until the interpreter ends.

    Otherwise the thread would print a useless traceback, and if CPython stops it while it writes to stderr,
    the process aborts ("could not acquire lock for stderr at interpreter shutdown"). Returns at once in a
    thread that is no daemon, and after a while if such threads still run: they may wait for this one.
    """
    if ending() and threading.current_thread().daemon:
        end = time.monotonic() + EXIT_BUDGET
        while _only_daemons or time.monotonic() < end:
            time.sleep(_LOOK)


def wait_no_longer_than_the_interpreter() -> None:
    """Make sure that the end of the interpreter cancels all waits. Call this before a wait; it is cheap.

    The interpreter joins all threads that are not daemons, and would never get past a waiting one.
    """
    global _ending, _listening, _behind_pools  # noqa: PLW0603 (one registration for the process)
    # The interpreter calls these functions in reverse order; that of concurrent.futures waits for its pools.
    # If concurrent.futures was imported after our first registration, register again, to be called earlier.
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
    """Whether the end of the interpreter wakes waits; if not, a wait must check :func:`ending` repeatedly."""
    return _listening


def _end_waits() -> None:
    global _ending  # noqa: PLW0603 (there is one interpreter)
    _ending = True
    for engine in _mine():
        with contextlib.suppress(Exception):
            engine.wake_all()


def _end_of_child() -> None:
    """End a child of multiprocessing in the interpreter's order: cancel waits, join threads, release."""
    _end_waits()
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    _release_all("exit")


def _release_all(reason: Reason) -> None:
    """Close every engine. One Ctrl-C is kept until that is done; a second one ends the wait."""
    interrupts: list[BaseException] = []
    for _ in (1, 2):  # a tuple, not range(): a signal could arrive at a call before the try
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
    return [engine for engine in list(_engines) if engine.origin.is_here()]


def on_sigterm(client: Closable) -> None:
    """Release what a client holds when SIGTERM arrives, then do what SIGTERM did before.

    By default SIGTERM ends the process without any ``finally``, so each deployment would leave locks to their
    ttl. After the release the previous handler runs. If that was the default, the process ends by the signal,
    or as the first process of a container, which its own signals cannot end, with exit code 143.

    Raises:
        ConfigError: The caller is not the main thread, which alone may install signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError('on_sigterm="release" needs the main thread', hint="connect there, or leave it out")
    import signal  # here: it takes half a millisecond, and few programs ask for this

    previous = signal.getsignal(signal.SIGTERM)
    releasing = _Releasing(weakref.ref(client), signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        if not releasing.over(frame):
            return  # the release is not done yet; the signal is sent again when it is
        if callable(previous):
            previous(number, frame)
        elif previous != signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            if os.getpid() == _FIRST:
                # The kernel spares the first process of a container (pid_namespaces(7)).
                os._exit(128 + number)

    signal.signal(signal.SIGTERM, handle)


class _Releasing:
    """The release that a SIGTERM starts, on a separate thread and in a bounded time.

    The handler runs between two bytecodes of the main thread. If it interrupted the user's code, it waits for
    the release, so that this code does not run without the lock. If it interrupted lockkit's, whose critical
    section the release may need, it returns soon, and the signal is sent again after the release.
    """

    def __init__(self, client: weakref.ref[Closable], number: int) -> None:
        self._client = client
        self._origin: Origin | None = None
        self._number = number
        self._over = threading.Event()
        self._again = False

    def over(self, frame: FrameType | None) -> bool:
        """Start the release unless it was started, and wait for it; return whether it is done."""
        if self._origin is None or not self._origin.is_here():
            self._origin, self._over, self._again = this_origin(), threading.Event(), False
            try:
                start(self._run, "lockkit-sigterm")
            except RuntimeError:  # no thread starts: release in this one, unless it may hold a needed mutex
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
        except RuntimeError:  # no second thread can be started
            self._release()
        else:
            thread.join(_SIGTERM_BUDGET)
        self._over.set()
        if self._again:
            os.kill(os.getpid(), self._number)


def inside(frame: FrameType | None) -> bool:
    """Whether a stack is in code of lockkit or a store, not in user code that lockkit called."""
    if frame is None:
        return False
    # Iterators written in C walk the stack, because a signal may arrive at each bytecode of our own.
    modules = map(attrgetter("f_globals"), map(itemgetter(0), walk_stack(frame)))
    names = map("{}.".format, map(methodcaller("get", "__name__"), modules))
    ours = filter(methodcaller("startswith", _OURS), names)
    return next(filterfalse(methodcaller("startswith", _CALLING), ours), None) is not None
