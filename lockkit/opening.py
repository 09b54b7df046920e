"""The store of a client, opened when it is first used, and in a forked child anew.

``connect()`` imports this module, and with it all of the engine: a signal handler that locks finds nothing half imported.
"""

from __future__ import annotations

import copy
import logging
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Literal

from lockkit.caller import caller, place
from lockkit.clock import Clock
from lockkit.drivers.dispatch import Dispatcher
from lockkit.drivers.lifecycle import (
    INSIDE_PATIENCE,
    at_exit,
    ending,
    inside,
    over,
    wait_no_longer_than_the_interpreter,
)
from lockkit.drivers.patience import patiently
from lockkit.drivers.threads import Driver
from lockkit.drivers.ticker import no_thread, thread_refused
from lockkit.errors import AcquireCancelled, BackendUnavailable, LockkitError
from lockkit.events import Counters
from lockkit.facts import Capabilities, Event, Owner, Reason, Skipped
from lockkit.identity import this_process
from lockkit.mutex import Mutex
from lockkit.observe import journal
from lockkit.printable import printable
from lockkit.redaction import redact
from lockkit.store.spi import Backend, OpenOptions, Refused, Unknown

if TYPE_CHECKING:
    from lockkit.config import Config
    from lockkit.plugins import PluginManager

__all__ = ["Opening"]

_log = logging.getLogger("lockkit")
_LEAST = 0.4
"""Seconds that opening a store may take even where less is left or stated: names are looked up, TLS is agreed on."""


class _Here:
    """The part of a client that belongs to one process.

    Attributes:
        driver: The engine, while the client is open.
        ended: The engine of a client that closes; its close() may have been cut short.
        refused: When the store was last found not to open, and why.
        warnings: Those of the store that nobody has logged yet.
        under_way: Whether a thread is opening the store.
    """

    __slots__ = ("counters", "driver", "ended", "pid", "refused", "under_way", "warnings")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.driver: Driver | None = None
        self.ended: Driver | None = None
        self.refused: tuple[float, Refused | Unknown] | None = None
        self.counters = Counters()
        self.warnings: list[str] = []
        self.under_way = False


class Opening:
    """The open store and all else that a client, its locks and its leases share. Thread-safe. An open store that all of them have dropped is closed.

    A forked child starts afresh: a connection of its own, and none of its parent's leases.

    Attributes:
        capabilities: What the store can do; the plugin's word until the store is open, then the store's.
        here: The part of this process, or after a fork still of the parent, until it is used.
        where: "wrapper" in a program that runs another under a lock.
        closed: It opens no more.
    """

    def __init__(
        self,
        config: Config,
        plugins: PluginManager,
        clock: Clock,
        task: str | None,
        where: Literal["process", "wrapper"],
    ) -> None:
        self.config = config
        self.plugins = plugins
        self.clock = clock
        self.where: str = where
        self.capabilities: Capabilities = plugins.backend(config.url).capabilities
        self.closed = False
        self._task = task
        self._mutex = Mutex()
        self.here = _Here()
        self._made_at = caller()
        config.check_scope(self.capabilities.scope)

    @property
    def url(self) -> str:
        """The store's URL, secrets redacted."""
        return redact(self.config.url)

    @property
    def owner(self) -> Owner:
        """This process, as others see it."""
        return this_process(self._task)

    @property
    def engine(self) -> Driver | None:
        """The engine of this process if there is one; never the parent's."""
        driver = self.here.driver
        return driver if driver is not None and driver.pid == os.getpid() else None

    @property
    def counters(self) -> Counters:
        """The counters of this process."""
        with self._own():
            return self.here.counters

    def driver(self, patience: float | None = 0.0) -> Driver:
        """The engine of this process; opens the store when there is none, again and again for ``patience`` seconds.

        None is as long as a request may take. Each try takes ``request_timeout`` at most. With patience all of it takes that long and half a second more at most.

        Raises:
            BackendError: The store does not open.
            AcquireCancelled: The client is closed, or the interpreter is ending.
        """
        driver = self.here.driver
        if driver is not None and driver.pid == os.getpid():
            return driver
        request = self.config.request_timeout
        longest = max(request, _LEAST)
        seconds = request if patience is None else patience
        told: list[object] = []
        if seconds:
            wait_no_longer_than_the_interpreter()

        def tell(trouble: Refused | Unknown) -> None:
            if seconds and ending():
                raise AcquireCancelled("the interpreter ends")
            if not told:
                _log.warning(
                    "%s does not open yet, trying for %.0f s: %s",
                    printable(self.url),
                    seconds,
                    printable(str(trouble)),
                )
            told.append(trouble)

        try:
            return patiently(
                lambda left: self._open(min(left, longest) if seconds else longest),
                self.clock,
                seconds,
                tell,
                _LEAST,
            )
        except (Refused, Unknown) as trouble:
            raise trouble.error from None
        except RuntimeError as error:
            if no_thread(error):
                raise thread_refused(error, None) from error
            raise

    def warn(self) -> None:
        """Log the warnings that the store gave when it was opened, for a program that takes a lock; one that only looks needs none."""
        while self.here.warnings:
            try:
                _log.warning("%s", printable(self.here.warnings.pop(0)))
            except IndexError:  # another thread tells it
                return

    def look(self, gone: object = None) -> None:  # noqa: ARG002 (what is gone, to the callback of a weak reference)
        """Have the background look for leases that were collected, or whose ``with`` was left. A finalizer may call this: it takes no lock."""
        driver = self.engine
        if driver is not None:
            driver.heartbeat.look()

    def skipped(self, skipped: Skipped) -> None:
        """Count and tell a call that was skipped because its lock was busy."""
        driver = self.driver()
        self.here.counters.add("skipped")
        holder = str(skipped.holder.owner) if skipped.holder else None
        driver.dispatcher.tell(Event("skipped", skipped.name, data={"holder": holder}))

    def close(self) -> None:
        """See :meth:`lockkit.client.Client.close`."""
        with self._own():
            here = self.here
            driver = here.ended or here.driver
            leaving = None if driver is None else driver.leave("exit")
            # From here on it ends, whatever hits this thread.
            self.closed = True
            here.ended, here.driver = driver, None
        if leaving is not None:
            # The close may need what the interrupted frame holds: a mutex, the release that it is at.
            leaving.wait(INSIDE_PATIENCE if inside(_caller(sys._getframe(1))) else None)  # noqa: SLF001
            if leaving.over:
                here.ended = None

    def release_all(self, reason: Reason) -> None:
        """Release what this process holds. For the end of the process: bounded, and the client is closed by it."""
        ended = self.here.ended
        driver = ended if ended is not None and ended.pid == os.getpid() else self.engine
        if driver is not None:
            self.closed = True
            driver.close(reason)

    def __del__(self) -> None:
        here: _Here | None = getattr(self, "here", None)  # None: its constructor was cut short
        # The second: its close() was.
        driver = here and (here.driver or here.ended)
        if not driver or driver.gone or driver.pid != os.getpid():
            return
        closed = driver.closed
        driver.drop()
        if closed:
            return
        warnings.warn_explicit(
            f"the client of {self.url} was never closed",
            ResourceWarning,
            *place(self._made_at),
            source=self,
        )

    def _own(self) -> threading.RLock:
        """The mutex of this process; in a forked child everything of the parent's is put aside first."""
        mutex = self._mutex.of_this_process()
        if self.here.pid != os.getpid():
            with mutex:
                if self.here.pid != os.getpid():
                    self.here = _Here()
        return mutex

    def _open(self, budget: float) -> Driver:
        asked = self.clock.now()
        with self._own():
            engine = self.engine
            if engine is not None:
                return engine
            if self.closed:
                raise AcquireCancelled("this client is closed", hint="connect again")
            here = self.here
            if here.refused is not None and here.refused[0] >= asked:
                raise _copied(
                    here.refused[1]
                )  # somebody tried while this thread waited; its budget is used up
            here.warnings = []
            backend: Backend | None = None
            driver: Driver | None = None
            try:
                backend = self._open_store(budget)
                driver = self._start(backend, here.counters)
                driver.used_by = weakref.ref(self, _dropping(driver))
                at_exit(driver)
                self.capabilities = backend.capabilities
                # No signal is let through between these: a handler that closed the client, or used it, came before.
                if here.driver is None and not self.closed:
                    here.driver = driver
            except (Refused, Unknown) as trouble:
                here.refused = (self.clock.now(), _copied(trouble))
                raise
            finally:
                if backend is not None and (driver is None or here.driver is not driver):
                    self._undo(here, backend, driver)
            if here.driver is driver and here.pid == os.getpid():
                return driver
        # A signal handler has closed the client, or opened the store, or forked: this is the child.
        return self._open(budget)

    def _undo(self, here: _Here, backend: Backend, driver: Driver | None) -> None:
        """Let go of a store that was opened and is not used."""
        try:
            if driver is not None:
                over(driver)
        finally:
            if here.pid == os.getpid():
                backend.close()

    def _open_store(self, budget: float) -> Backend:
        config = self.config
        state_dir = str(config.state_place().path) if self.capabilities.scope == "host" else None
        if config.source("url") == "default" and state_dir is not None:
            self._warn(f"host-local lock in {state_dir}: it excludes only this host")
        options = OpenOptions(
            namespace=config.namespace,
            owner=self.owner,
            clock=self.clock,
            state_dir=state_dir,
            strict=config.strict,
            warn=_weakly(self._warn),
            settings=config.plugins.get(self.plugins.distribution(config.url), {}),
            suspect=_weakly(self._suspect),
            budget=budget,
        )
        here = self.here
        outer, here.under_way = here.under_way, True
        try:
            return self.plugins.open(config.url, options)
        except LockkitError as error:
            if not (outer and isinstance(error.__cause__, ImportError)):
                raise
            unavailable = BackendUnavailable(
                "a signal handler interrupted the import of this store, and cannot use it before that is done",
                hint="use the client once before the handler is installed, client.check() for instance",
            )
            raise Refused(unavailable, retry=False) from error
        finally:
            here.under_way = outer

    def _start(self, backend: Backend, counters: Counters) -> Driver:
        config, plugins = self.config, self.plugins
        return Driver(
            backend,
            self.clock,
            counters,
            Dispatcher(
                counters,
                self.clock,
                plugins.implementations("lockkit_event"),
                plugins.implementations("lockkit_alert"),
            ),
            partial(plugins.implementations, "lockkit_cleanup"),
            _Journal(config),
            config.cleanup_budget,
            config.request_timeout,
        )

    def _warn(self, message: str) -> None:
        """The store has something to warn of."""
        self.here.warnings.append(message)
        if self.here.driver is not None:  # it is not about opening it
            self.warn()

    def _suspect(self, token: str) -> None:
        """The store believes that a claim is gone."""
        driver = self.engine
        if driver is not None:
            driver.beats.suspect(token)


# The engine outlives a client that is dropped, and must not keep it alive: what it is given refers to no client.


class _Journal:
    """Writes critical-failure records; a full disk must not break the release that it reports."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, record: dict[str, object]) -> None:
        try:
            journal.append(self._config.state_place().path, record)
        except Exception:
            _log.exception("could not write the critical-failure record %r", record)


def _dropping(driver: Driver) -> Callable[[object], None]:
    """Return the callback for the collection of an opening, for when a signal has cut short the finalizer that comes first."""
    found = weakref.ref(driver)

    def drop(_: object) -> None:
        engine = found()
        if engine is not None and not engine.gone and engine.pid == os.getpid():
            engine.drop()

    return drop


def _copied(trouble: Refused | Unknown) -> Refused | Unknown:
    """The same trouble without a traceback, which keeps alive the frames of all that it passed, and what their callers hold."""
    kind = Refused if isinstance(trouble, Refused) else Unknown
    return kind(copy.copy(trouble.error), retry=trouble.retry)


def _caller(frame: FrameType | None) -> FrameType | None:
    """The innermost frame that is not one of the client itself."""
    while frame is not None and frame.f_globals.get("__name__") in ("lockkit.client", __name__):
        frame = frame.f_back
    return frame


def _weakly(method: Callable[[str], None]) -> Callable[[str], None]:
    """The method for as long as its object lives; then nothing."""
    found = weakref.WeakMethod(method)

    def call(argument: str) -> None:
        alive = found()
        if alive is not None:
            alive(argument)

    return call
