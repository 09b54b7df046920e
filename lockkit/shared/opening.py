"""The store of a client: opened when it is first used, and opened anew in a forked child.

``connect()`` imports this module, and so the whole engine: a signal handler finds no half imported module.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Literal

from lockkit.config.suggesting import same_store
from lockkit.drivers.dispatch import Dispatcher
from lockkit.drivers.lifecycle import (
    INSIDE_PATIENCE,
    at_exit,
    ending,
    inside,
    over,
    wait_no_longer_than_the_interpreter,
)
from lockkit.drivers.patience import Tries, patiently
from lockkit.drivers.threads import Driver
from lockkit.drivers.ticker import no_thread, thread_refused
from lockkit.errors import AcquireCancelled, BackendUnavailable, LockkitError
from lockkit.facts import Capabilities, Event, Owner, Reason, Skipped
from lockkit.lib.caller import caller, place
from lockkit.lib.clock import Clock
from lockkit.lib.forks import IMPORTS
from lockkit.lib.mutex import Mutex
from lockkit.lib.origin import this_origin
from lockkit.lib.printable import printable
from lockkit.observe import journal
from lockkit.protocol.denials import held_at, held_claim
from lockkit.shared.options import longer_ttl
from lockkit.store.log import Log
from lockkit.store.sharing import LastFailure
from lockkit.store.spi import Backend, OpenOptions, Refused, Unknown
from lockkit.store.starting import start
from lockkit.store.ttls import misfit
from lockkit.values.events import Counters
from lockkit.values.identity import this_process
from lockkit.values.redaction import redact

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.observe.event_journal import EventJournal
    from lockkit.plugins import PluginManager
    from lockkit.plugins.calling import Implementation

__all__ = ["Opening", "for_the_user"]

_log = Log("lockkit")
_LEAST = 0.4
"""Seconds that opening a store may take at least, to resolve host names and negotiate TLS."""


class _Here:
    """The part of a client that belongs to one process.

    Attributes:
        driver: The engine, while the client is open.
        ended: The engine of a client that closes; its close() may have been interrupted.
        failure: The last failure to open the store.
        warnings: Warnings of the store that are not logged yet.
        journal: The event journal, if it is on and has no row of this client yet.
        first: Whether something is to be done before a lock is taken; see :meth:`Opening.begin`.
        under_way: Whether a thread is opening the store.
    """

    __slots__ = (
        "counters", "driver", "ended", "failure", "first", "journal", "origin", "under_way", "warnings",
    )  # fmt: skip

    def __init__(self) -> None:
        self.origin = this_origin()
        self.driver: Driver | None = None
        self.ended: Driver | None = None
        self.failure = LastFailure()
        self.counters = Counters()
        self.warnings: list[str] = []
        self.journal: EventJournal | None = None
        self.first = False
        self.under_way = False


class Opening:
    """The state that a client, its locks and its leases share, such as the open store. Thread-safe.

    The store is closed when none of them exists any more. A forked child starts afresh: a connection of its
    own, and none of its parent's leases.

    Attributes:
        here: The part of this process; after a fork the parent's, until the child first uses the client.
        where: "wrapper" in a program that runs another under a lock.
        closed: Whether the client is closed, so that it never opens the store again.
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
        self._declared: Capabilities = plugins.backend(config.url).capabilities
        self._ttls_told: dict[tuple[float, float], object] = {}
        self.closed = False
        self._task = task
        self._mutex = Mutex()
        self.here = _Here()
        self._made_at = caller()
        config.check_scope(self.capabilities.scope)
        plugins.check_settings(config)

    @property
    def url(self) -> str:
        """The store's URL, secrets redacted."""
        return redact(self.config.url)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the store: as declared until it is open, then as the store reports them."""
        driver = self.here.driver
        return self._declared if driver is None else driver.backend.capabilities

    @property
    def owner(self) -> Owner:
        """This process, as others see it."""
        return this_process(self._task)

    @property
    def engine(self) -> Driver | None:
        """The engine of this process if there is one; never the parent's."""
        driver = self.here.driver
        return driver if driver is not None and driver.origin.is_here() else None

    @property
    def counters(self) -> Counters:
        """The counters of this process."""
        with self._own():
            return self.here.counters

    def driver(self, patience: float | None = 0.0) -> Driver:
        """The engine of this process; opens the store if there is none yet.

        Args:
            patience: Seconds for which to try again while the store does not open; the call takes half a
                second longer at most. 0 for a single try; None for the request timeout, and beyond it for as
                long as the store is busy. Each try takes at most the request timeout.

        Raises:
            BackendError: The store does not open.
            AcquireCancelled: The client is closed, or the interpreter is ending.
        """
        driver = self.here.driver
        if driver is not None and driver.origin.is_here():
            return driver
        with for_the_user():
            return patiently(*self.trying(patience))

    def trying(self, patience: float | None) -> tuple[Callable[[float], Driver], Tries]:
        """One try to open the store, within the seconds that it is given, and the limits of the tries."""
        request = self.config.request_timeout
        longest = max(request, _LEAST)
        seconds = request if patience is None else patience
        told: list[object] = []
        if seconds:
            wait_no_longer_than_the_interpreter()

        def tell(trouble: Refused | Unknown) -> None:
            if seconds and ending():
                raise AcquireCancelled("the interpreter is ending")
            if not told:
                _log.warning(
                    "cannot open %s yet, trying %s: %s",
                    printable(self.url),
                    "until it opens" if trouble.busy and patience is None else f"for {seconds:.0f} s",
                    printable(str(trouble)),
                )
            told.append(trouble)

        least = _LEAST if seconds else longest
        return self._open, Tries(self.clock, seconds, tell, least, longest, endless=patience is None)

    def import_store(self) -> None:
        """Import the code of the store and its client library. If that fails, opening the store says why."""
        with contextlib.suppress(Exception):
            self.plugins.check(self.config.url)

    def begin(self) -> None:
        """Log the store's warnings, and write a first row in the event journal, before the first lock.

        A program that only inspects needs neither. Of several threads each waits until all is done.
        """
        here = self.here
        self.warn()
        journal = here.journal
        if journal is not None:
            journal.begin(self.clock, start)
            here.journal = None
        here.first = False

    def warn(self) -> None:
        """Log the warnings that the store gave when it was opened."""
        while self.here.warnings:
            try:
                _log.warning("%s", printable(self.here.warnings.pop(0)))
            except IndexError:  # another thread logs it
                return

    def longer_ttl(self, ttl: float, present: float) -> float:
        """Check the ttl of an ``extend``; log another one. See :func:`lockkit.shared.options.longer_ttl`."""
        longer = longer_ttl(ttl, present, self.capabilities, strict=self.config.strict)
        if longer != ttl:
            self.tell_ttl(ttl, longer)
        return longer

    def tell_ttl(self, asked: float, granted: float) -> None:
        """Log, once per pair, that the store grants another ttl than asked for, unless within its margin."""
        can, mine = self.capabilities, object()
        if abs(granted - asked) > can.margin and self._ttls_told.setdefault((asked, granted), mine) is mine:
            _log.warning("%s", printable(misfit(asked, granted, self.url, can)))

    def look(self, gone: object = None) -> None:  # noqa: ARG002 (what is gone, to the callback of a weak reference)
        """Have a background thread look for collected or left leases. Takes no lock, for finalizers."""
        driver = self.engine
        if driver is not None:
            driver.heartbeat.look()

    def skipped(self, skipped: Skipped) -> None:
        """Count and report a call that was skipped because its lock was busy."""
        driver = self.driver()
        self.here.counters.add("skipped")
        holder = str(skipped.holder.owner) if skipped.holder else None
        data = {
            "holder": holder,
            "holder_claim": held_claim(skipped.holder),
            "held_at": held_at(skipped.holder),
        }
        driver.dispatcher.tell(Event("skipped", skipped.name, data=data))

    def close(self) -> None:
        """See :meth:`lockkit.sync.client.Client.close`."""
        # In a signal handler, the close may need a mutex or a release that the interrupted frame holds.
        self.end(INSIDE_PATIENCE if inside(_caller(sys._getframe(1))) else None)  # noqa: SLF001

    def end(self, patience: float | None) -> None:
        """Close the client; wait for the releases for these seconds at most. They go on in the background."""
        with self._own():
            here = self.here
            driver = here.ended or here.driver
            leaving = None if driver is None else driver.ending.leave("exit")
            # From here on the client ends, even if a signal interrupts this thread.
            self.closed = True
            here.ended, here.driver = driver, None
        if leaving is not None:
            leaving.wait(patience)
            if leaving.over:
                here.ended = None

    def release_all(self, reason: Reason) -> None:
        """Release all holds and close the client, at the end of the process. Takes a bounded time."""
        ended = self.here.ended
        driver = ended if ended is not None and ended.origin.is_here() else self.engine
        if driver is not None:
            self.closed = True
            driver.ending.close(reason)

    def __del__(self) -> None:
        here: _Here | None = getattr(self, "here", None)  # None if the constructor was interrupted
        # here.ended is set if close() was interrupted.
        driver = here and (here.driver or here.ended)
        if not driver or driver.ending.gone or not driver.origin.is_here():
            return
        closed = driver.closed
        driver.ending.drop()
        if closed:
            return
        warnings.warn_explicit(
            f"the client of {self.url} was never closed",
            ResourceWarning,
            *place(self._made_at),
            source=self,
        )

    def _own(self) -> threading.RLock:
        """The mutex of this process; a forked child first replaces the state of its parent."""
        mutex = self._mutex.of_this_process()
        if not self.here.origin.is_here():
            with mutex:
                if not self.here.origin.is_here():
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
            here.failure.check(asked)
            here.warnings, here.journal, here.first = [], None, False
            backend: Backend | None = None
            driver: Driver | None = None
            try:
                backend = self._open_store(budget)
                self.config.check_scope(backend.capabilities.scope)
                # After the store is open, where `lockkit host init` sees it: one of the two sees the other.
                self.config.check_default()
                driver = self._start(backend, here.counters)
                driver.used_by = weakref.ref(self, _dropping(driver))
                at_exit(driver.ending)
                self._declared = backend.capabilities
                # CPython runs no signal handler between these steps; one that used the client ran before.
                if here.driver is None and not self.closed:
                    here.driver = driver
            except (Refused, Unknown) as trouble:
                here.failure.keep(self.clock.now(), trouble)
                raise
            finally:
                if backend is not None and (driver is None or here.driver is not driver):
                    self._undo(here, backend, driver)
            if here.driver is driver and here.origin.is_here():
                return driver
        # A signal handler has closed the client, or opened the store, or forked and this is the child.
        return self._open(budget)

    def _undo(self, here: _Here, backend: Backend, driver: Driver | None) -> None:
        """Close a store that was opened and is not used."""
        try:
            if driver is not None:
                over(driver.ending)
        finally:
            if here.origin.is_here():
                backend.close()

    def _open_store(self, budget: float) -> Backend:
        config = self.config
        embedded = self.capabilities.scope in ("user", "host")
        state_dir = str(config.state_place().path) if embedded else None
        if config.source("url") == "default" and state_dir is not None:
            self._warn(
                f"the locks are in {state_dir}: they keep apart only the processes of this user on this host"
            )
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
                "a signal handler interrupted the import of this store's client library, "
                "and cannot use the store before the import is done",
                hint="use the client once before you install the handler, for instance with client.check()",
            )
            raise Refused(unavailable, retry=False) from error
        finally:
            here.under_way = outer

    def _listeners(
        self, backend: Backend, counters: Counters
    ) -> tuple[Sequence[Implementation], Sequence[Implementation]]:
        """The hooks for events and for alerts: those of plugins, and the event journal if it is on."""
        events = self.plugins.implementations("lockkit_event")
        alerts = self.plugins.implementations("lockkit_alert")
        if not self.config.journal:
            return events, alerts
        with IMPORTS:
            from lockkit.observe.event_journal import EventJournal

        try:
            journal = EventJournal(self.config, backend.capabilities.scope, self.owner, counters.add)
            self.here.journal, self.here.first = journal, True
        except LockkitError as error:
            _log.error("there is no event journal: %s", printable(str(error)))
            return events, alerts
        return (
            (*events, ("journal", journal.lockkit_event)),
            (*alerts, ("journal", journal.lockkit_alert)),
        )

    def _watched(self, backend: Backend) -> tuple[frozenset[str], Implementation] | None:
        """The locks whose last hold is kept in the store, and their recorder; None if none is configured."""
        config = self.config
        if not (config.metrics_names or config.alerts) or backend.capabilities.scope == "process":
            return None
        with IMPORTS:
            from lockkit.notes.last_holds import LastHolds
            from lockkit.observe.periods import watched

        names = watched(config)
        kept = LastHolds(backend, config.request_timeout)
        return (names, ("last_holds", kept.lockkit_event)) if names else None

    def _start(self, backend: Backend, counters: Counters) -> Driver:
        config, plugins = self.config, self.plugins
        if plugins.implementations("lockkit_stats"):
            plugins.notify("lockkit_stats", stats=counters.reader())
        return Driver(
            backend,
            self.clock,
            counters,
            Dispatcher(counters, self.clock, *self._listeners(backend, counters), self._watched(backend)),
            partial(plugins.implementations, "lockkit_cleanup"),
            _Journal(config),
            config.cleanup_budget,
            config.request_timeout,
            partial(same_store, config, reachable=backend.capabilities.scope != "process"),
        )

    def _warn(self, message: str) -> None:
        """Keep a warning of the store until a lock is taken; log it at once if the store is open."""
        self.here.warnings.append(message)
        self.here.first = True
        if self.here.driver is not None:
            self.warn()

    def _suspect(self, token: str) -> None:
        """Check a claim that the store believes gone."""
        driver = self.engine
        if driver is not None:
            driver.beats.suspect(token)


@contextlib.contextmanager
def for_the_user() -> Iterator[None]:
    """Turn the last failure to open a store into the error for the user."""
    try:
        yield
    except (Refused, Unknown) as trouble:
        raise trouble.error from None
    except RuntimeError as error:
        if no_thread(error):
            raise thread_refused(error, None) from error
        raise


# The engine may outlive its client and must not keep it alive: the objects that it gets refer to no client.


class _Journal:
    """A writer of critical-failure records. A failure to write (a full disk) does not break the release."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, record: dict[str, object]) -> None:
        try:
            where = {"url": redact(self._config.url), "namespace": self._config.namespace}
            journal.append(self._config.state_place().path, record | where)
        except Exception:
            _log.exception("could not write the critical-failure record %r", record)


def _dropping(driver: Driver) -> Callable[[object], None]:
    """A callback for the collection of an opening, in case a signal interrupted its finalizer."""
    found = weakref.ref(driver)

    def drop(_: object) -> None:
        engine = found()
        if engine is not None and not engine.ending.gone and engine.origin.is_here():
            engine.ending.drop()

    return drop


def _caller(frame: FrameType | None) -> FrameType | None:
    """The innermost frame outside the code of the client."""
    while frame is not None and frame.f_globals.get("__name__") in ("lockkit.sync.client", __name__):
        frame = frame.f_back
    return frame


def _weakly(method: Callable[[str], None]) -> Callable[[str], None]:
    """A function that calls the method as long as its object lives, and then does nothing."""
    found = weakref.WeakMethod(method)

    def call(argument: str) -> None:
        alive = found()
        if alive is not None:
            alive(argument)

    return call
