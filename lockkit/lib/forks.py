"""Fork hooks that a signal handler cannot leave half done.

CPython only reports an exception that leaves a fork hook. So a signal handler that raises can end a hook
early, unnoticed. A handler may run between any two bytecodes of the main thread, even before a function's
first statement, where no ``try`` helps; but never inside a method written in C. Hence three rules:

- Steps that must not fail (taking and releasing the mutexes, marking the fork) are methods written in C,
  registered as hooks themselves. ``acquire`` takes the mutex or raises; ``release`` always releases.
- All other steps can be repeated: a second run does only what the first did not. A step that raises is run
  again, and each is registered several times, because a handler may interrupt it at its start.
- No thread waits for a step that was interrupted each time. The step's module documents what it then refuses.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

__all__ = ["IMPORTS", "Forks", "after_logging", "executing", "let_forks_pass", "reinit"]

Step: TypeAlias = Callable[[], None]
_TRIES = 20
"""The most runs of a step that keeps raising. A bug in the step must not block a fork for ever."""
_COPIES = 3
"""How often each step is registered."""


class Forks:
    """One module's part in the forks of this process. Forks take place one at a time.

    Args:
        before: A step before the fork, with the locks taken; other threads may run.
        in_parent: A step after the fork, in the parent.
        in_child: A step after the fork, in the child, which has no other threads.
        locks: Mutexes taken before ``before``, in this order, and free after the fork, also in the child.
            Their owners must never replace them by other objects.
    """

    def __init__(
        self,
        *,
        before: Step | None = None,
        in_parent: Step | None = None,
        in_child: Step | None = None,
        locks: tuple[threading.RLock, ...] = (),
    ) -> None:
        self._before, self._in_parent = before, in_parent
        self._locks = (*locks, threading.RLock())
        self._threads: set[int] = set()
        self._done: set[int] = set()
        self._in_child = in_child
        _between_forks(self.register)

    def register(self, *, in_child: bool) -> None:
        """Register the hooks. In a child whose fork delayed this, also do what the hooks would have done."""
        if in_child:
            for lock in self._locks:
                reinit(lock)()
            self._step_in_child()
        self._register()

    def _register(self) -> None:
        before, in_parent, in_child = self._before, self._in_parent, self._in_child
        # Register the steps first: the last hook registered runs first before a fork, and last after it.
        for _ in range(_COPIES if hasattr(os, "register_at_fork") else 0):
            if before is not None:
                os.register_at_fork(before=_Repeated(self._step_before))
            if in_parent is not None:
                os.register_at_fork(after_in_parent=_Repeated(self._step_after))
            if in_child is not None:
                os.register_at_fork(after_in_child=_Repeated(self._step_in_child))
        if before is None or not hasattr(os, "register_at_fork"):
            return
        for sign in (self._threads, self._done):
            os.register_at_fork(after_in_parent=sign.clear, after_in_child=sign.clear)
        for lock in reversed(self._locks):
            # A handler may raise while a hook waits for a mutex. Each is still taken before the next one:
            # in another order two threads that fork at once could wait for each other.
            for _ in range(_COPIES):
                os.register_at_fork(before=_Repeated(partial(_have, lock)))
            os.register_at_fork(
                before=lock.acquire, after_in_parent=lock.release, after_in_child=reinit(lock)
            )
        _register_marks()

    def elsewhere(self) -> bool:
        """Whether another thread is forking this process now. The forking thread's own code may continue."""
        return bool(self._threads) and threading.get_ident() not in self._threads

    def under_way(self) -> bool:
        """Whether any thread is forking this process now."""
        return bool(self._threads)

    def prepared(self) -> bool:
        """Whether the preparation of the current fork, or of this process's own fork, was completed."""
        return threading.get_ident() in self._done

    def _step_before(self) -> None:
        me = threading.get_ident()
        if me in _EXECUTING or me in self._done or not all(map(_mine, self._locks)):
            return
        self._threads.add(me)
        if self._before is not None:
            self._before()
        self._done.add(me)

    def _step_after(self) -> None:
        me = threading.get_ident()
        # If this thread does not have the mutexes, it did not prepare the fork, and has nothing to undo.
        if me not in _EXECUTING and self._in_parent is not None and all(map(_mine, self._locks)):
            self._threads.add(me)
            self._in_parent()

    def _step_in_child(self) -> None:
        if self._in_child is not None and threading.get_ident() not in _EXECUTING:
            self._in_child()


class _Repeated:
    """A step that is run until it completes; afterwards the last exception that interrupted it is raised."""

    __slots__ = ("_step",)

    def __init__(self, step: Step) -> None:
        self._step = step

    def __call__(self) -> None:
        struck: BaseException | None = None
        for _ in range(_TRIES):
            try:
                self._step()
                break
            except BaseException as error:
                # The frames may refer to objects that the step is to close.
                struck = error.with_traceback(None)
        if struck is not None:
            raise struck


def _mine(lock: threading.RLock) -> bool:
    return bool(lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001 - as threading.Condition does


def _have(lock: threading.RLock) -> None:
    if not _mine(lock):
        lock.acquire()


def reinit(lock: threading.RLock) -> Callable[[], Any]:
    """The method that frees a lock in a forked child, whichever thread held it."""
    method: Callable[[], Any] = lock._at_fork_reinit  # type: ignore[attr-defined]  # noqa: SLF001 - as stdlib
    return method


_EXECUTING: set[int] = set()
_FORKING: list[None] = []
"""One or more entries for each fork under way."""
_LATE: list[Callable[..., None]] = []


def _between_forks(register: Callable[..., None]) -> None:
    """Register hooks, but not while the process is being forked.

    Otherwise the hooks after that fork would release mutexes that the hooks before it have not taken.
    """
    if _FORKING:
        _LATE.append(register)
    else:
        register(in_child=False)


def _register_late(*, in_child: bool) -> None:
    while _LATE and not _FORKING:
        _LATE.pop()(in_child=in_child)


def _register_marks() -> None:
    """Mark each fork from before the other hooks until after them; repeated after each registration."""
    os.register_at_fork(
        before=partial(_FORKING.append, None),
        after_in_parent=partial(_FORKING.__delitem__, slice(-1, None)),  # raises nothing
        after_in_child=_FORKING.clear,
    )
    os.register_at_fork(
        after_in_parent=_Repeated(partial(_register_late, in_child=False)),
        after_in_child=_Repeated(partial(_register_late, in_child=True)),
    )


@contextmanager
def executing() -> Iterator[None]:
    """Skip all steps in the forks of this thread, for a child that only executes another program.

    The child must use nothing of lockkit, import nothing, and end with ``os._exit`` if the exec fails. As the
    exec closes its descriptors, the stores need not close connections before the fork and reopen them after
    it; the forks of ``subprocess`` run no hooks either. Block all signals before: no handler may fork.
    """
    me = threading.get_ident()
    _EXECUTING.add(me)
    try:
        yield
    finally:
        _EXECUTING.discard(me)


def let_forks_pass() -> None:
    """Wait for the end of another thread's fork, which may precede the hooks of a module just imported."""
    end = time.monotonic() + _LONG
    while _FORKING and not _mine(IMPORTS) and time.monotonic() < end:  # the forking thread holds IMPORTS
        time.sleep(0.001)


IMPORTS = threading.RLock()
"""The mutex that lockkit or a store holds while it imports a module late, so that no fork comes meanwhile.

If a process forks while another thread imports a module, the module's import lock stays taken in the child
for ever. The same holds for the user database, whose modules glibc loads at the first look-up.
"""
_LONG = 5.0
"""Seconds that a fork waits for an import: without a limit, one that needs a taken mutex would deadlock."""


def _free_imports() -> None:
    """Free IMPORTS in the child if another thread had it at the fork; the forking thread releases its own."""
    if not _mine(IMPORTS):
        reinit(IMPORTS)()


_registered = False


def after_logging() -> None:
    """Import logging, and have every fork take IMPORTS before the lock of logging. The caller holds IMPORTS.

    The hook registered last runs first before a fork, and an import may need the lock of logging. ``import
    lockkit`` does not load logging, a sixth of its time; so its hooks are registered again after logging's.
    """
    global _registered  # noqa: PLW0603
    if not _registered:
        import logging  # noqa: F401

        _registered = True
        _between_forks(_register_imports)


def _register_imports(*, in_child: bool) -> None:  # noqa: ARG001 (nothing else is to be done in a child)
    """Register the hooks of IMPORTS, which is reentrant: a fork runs them as often as registered."""
    if not hasattr(os, "register_at_fork"):
        return
    os.register_at_fork(
        before=partial(IMPORTS.acquire, True, _LONG),
        after_in_parent=IMPORTS.release,
        after_in_child=IMPORTS.release,
    )
    os.register_at_fork(after_in_child=_Repeated(_free_imports))
    _register_marks()


if "logging" in sys.modules:
    after_logging()
else:
    _register_imports(in_child=False)
