"""The synchronous face: ``connect`` and the client.

``import lockkit`` is paid by every program that might lock something; what only a program that does needs (the config
layers, the plugin manager, the engine) is imported by ``connect`` and by the first use.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar, Unpack

from lockkit.clock import SYSTEM, Clock
from lockkit.copies import LeaseCopy
from lockkit.errors import AcquireCancelled, ConfigError
from lockkit.events import Counters
from lockkit.facts import (
    Capabilities,
    Event,
    Owner,
    Reason,
    Skipped,
)
from lockkit.lease import Hold
from lockkit.leases import caller, place
from lockkit.locks import Lock, Options, RWLock, build, whole
from lockkit.mutex import Mutex
from lockkit.operating import Operations
from lockkit.printable import printable
from lockkit.queue import RW_CAPACITY
from lockkit.spi import OpenOptions, Refused, Unknown

if TYPE_CHECKING:
    from lockkit.config import Config
    from lockkit.drivers.threads import Driver
    from lockkit.plugins import PluginManager
    from lockkit.plugins.calling import Implementation

__all__ = ["Client", "connect"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
_log = logging.getLogger("lockkit")
_LEAST_OPENING = 0.4
"""Seconds that opening a store may take even where less is left or stated: names are looked up, TLS is agreed on."""

_FEW = 64
"""Names with holds up to which nobody looks for those that have fallen."""


class Client(Operations):
    """A connection to one store, in one namespace. Thread-safe, reusable after fork; opens the store when first used.

    In a forked child it starts afresh: a connection of its own, and none of its parent's leases.

    Attributes:
        config: The settings in force, each with where it came from.
        plugins: The plugin manager.
        capabilities: What the store can do.
        owner: Who this process is to others.
    """

    def __init__(
        self,
        config: Config,
        plugins: PluginManager,
        *,
        clock: Clock = SYSTEM,
        task: str | None = None,
        where: Literal["process", "wrapper"] = "process",
    ) -> None:
        self.config = config
        self.plugins = plugins
        self.clock = clock
        self._task = task
        self._where = where
        self._spec = plugins.backend(config.url)
        self.capabilities: Capabilities = self._spec.capabilities
        self._mutex = Mutex()
        self._driver: Driver | None = None
        self._ended: Driver | None = None
        self._made_at = caller()
        self._pid = os.getpid()
        self._closed = False
        self._refused: tuple[float, Refused | Unknown] | None = None
        self._warnings: list[str] = []
        self._counters = Counters()
        self._taken: dict[str, list[Hold]] = {}
        self._most_taken = _FEW
        config.check_scope(self.capabilities.scope)

    @property
    def url(self) -> str:
        """The store's URL, secrets redacted."""
        from lockkit.redaction import redact

        return redact(self.config.url)

    @property
    def url_source(self) -> str:
        """Where the URL came from: a file, ``LOCKKIT_URL``, ``argument`` or ``default``."""
        return self.config.source("url")

    @property
    def namespace(self) -> str:
        return self.config.namespace

    @property
    def owner(self) -> Owner:
        from lockkit.identity import this_process

        return this_process(self._task)

    # -- locks

    def lock(self, name: str, **options: Unpack[Options]) -> Lock:
        """A mutex.

        Args:
            name: What is locked; at most 512 bytes of UTF-8.
            options: See :class:`~lockkit.locks.Options`.

        Raises:
            ConfigError: Something is not allowed; the error says what is. No I/O has happened.
            CapabilityError: The store cannot do it.
        """
        return build(self, self.config, self.owner, name, "mutex", 1, 1, options)

    def semaphore(self, name: str, capacity: int, *, permits: int = 1, **options: Unpack[Options]) -> Lock:
        """A lock with room for ``capacity`` permits, of which an acquisition takes ``permits``. Otherwise as :meth:`lock`.

        Everybody must state the same capacity; :meth:`resize` changes it for those who are there.
        """
        if whole(permits, "permits", name) > whole(capacity, "capacity", name):
            raise ConfigError(f"permits={permits} can never fit into capacity={capacity}", name=name)
        return build(self, self.config, self.owner, name, "semaphore", permits, capacity, options)

    def rwlock(self, name: str, **options: Unpack[Options]) -> RWLock:
        """A reader/writer lock: ``.read()`` and ``.write()`` are locks. Otherwise as :meth:`lock`."""
        reader = build(self, self.config, self.owner, name, "read", 1, RW_CAPACITY, options)
        return RWLock(
            reader, build(self, self.config, self.owner, name, "write", RW_CAPACITY, RW_CAPACITY, options)
        )

    def locked(
        self, template: str, *, on_busy: Literal["raise", "skip"] = "raise", **options: Unpack[Options]
    ) -> Callable[[Callable[P, R]], Callable[P, R | Skipped]]:
        """Decorate a function to run only while it holds a lock named from its arguments.

            @client.locked("invoice:{invoice_id}", timeout=0, on_busy="skip")
            def bill(invoice_id): ...

        The template's fields are bound to the function's signature, defaults included, and checked when it is decorated.
        With ``on_busy="skip"`` a call that finds the lock busy (or times out) returns a :class:`~lockkit.facts.Skipped`,
        which is falsy, and is logged and counted.

        The lock is held while the function runs, so what is still to run when it returns is refused: when it is decorated, a
        generator or coroutine function, and one under ``@contextmanager``; when it is called, one that returns a coroutine, a
        generator, a context manager made by contextlib, or a Future that is not done (it is cancelled). Other lazy objects,
        such as ``map(...)``, look like any result.

        Raises:
            ConfigError: At once, for a template that does not fit the function, and for a function that cannot be seen to
                hold; from the call, for a result that is still to run.
        """
        from lockkit.decorator import locked  # late: it needs inspect, and few need it

        if not isinstance(template, str):
            raise ConfigError(
                f"a name template must be a str, not {template!r}", hint='@client.locked("job:{id}")'
            )
        self.lock("template", **options)  # refuses bad options now rather than at the first call
        return locked(lambda name: self.lock(name, **options), self.skipped, template, on_busy)

    # -- handles and counters

    def adopt(self, handle: Mapping[str, object] | LeaseCopy) -> LeaseCopy:
        """A handle for a claim taken elsewhere (``Lease.handle()``), bound to this client: it can release exactly that.

        Raises:
            ConfigError: It is no handle, or one of another namespace.
        """
        copy = LeaseCopy(handle.handle() if isinstance(handle, LeaseCopy) else handle, self)
        if copy.namespace not in (None, self.namespace):
            raise ConfigError(
                f"the handle of {copy.name!r} is of namespace {copy.namespace!r}, and this client is in {self.namespace!r}",
                name=copy.name,
                hint="connect with the namespace of the handle",
            )
        return copy

    def stats(self) -> dict[str, int]:
        """This process's counters since it began; the meanings are :data:`lockkit.events.COUNTERS`."""
        return self._counters.read()

    def leases(self) -> list[LeaseCopy]:
        """Copies of the handles of what this process holds through this client."""
        driver = self._own_driver()
        holds = driver.heartbeat.holds() if driver else []
        return [LeaseCopy(self.handle(hold), self) for hold in holds if not hold.ended]

    def pulse(self) -> Sequence[int]:
        """Descriptors that a child must inherit to keep process-bound claims when this process dies."""
        return self.driver().backend.pulse()

    # -- life

    def close(self) -> None:
        """Release what is held, cancel what is waiting, let go of the store. Bounded; may be called twice.

        All holds are released at the same time. A first Ctrl-C waits until that is done; a second one ends the call, while the
        releases go on in the background. Another call, or the end of the interpreter, waits for them. A Ctrl-C at the very
        beginning may leave the client as it was, open.
        """
        with self._own_mutex():
            driver = self._ended or self._driver
            leaving = None if driver is None else driver.leave("exit")
            # From here on it ends, whatever hits this thread.
            self._closed = True
            self._ended, self._driver = driver, None
        if leaving is not None:
            leaving.wait()
            self._ended = None

    def release_all(self, reason: Reason) -> None:
        """Release what this process holds. For the end of the process: bounded, and the client is closed by it."""
        ended = self._ended
        driver = ended if ended is not None and ended.pid == os.getpid() else self._own_driver()
        if driver is not None:
            self._closed = True
            driver.close(reason)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Neither: its constructor was cut short. The second: its close() was.
        driver = getattr(self, "_driver", None) or getattr(self, "_ended", None)
        if driver is None or driver.gone or driver.pid != os.getpid():
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

    def __repr__(self) -> str:
        return (
            f"<Client {printable(self.url)} namespace {self.namespace!r}{' closed' if self._closed else ''}>"
        )

    # -- what locks and leases need

    def driver(self, patience: float | None = 0.0) -> Driver:
        """The engine of this process; opens the store when there is none, again and again for ``patience`` seconds.

        None is as long as a request may take. Each try takes ``request_timeout`` at most. With patience all of it takes that long and half a second more at most.
        """
        driver = self._own_driver()
        if driver is not None:
            return driver
        from lockkit.drivers.lifecycle import ending, wait_no_longer_than_the_interpreter
        from lockkit.drivers.patience import patiently
        from lockkit.drivers.ticker import no_thread, thread_refused

        request = self.config.request_timeout
        longest = max(request, _LEAST_OPENING)
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
                _LEAST_OPENING,
            )
        except (Refused, Unknown) as trouble:
            raise trouble.error from None
        except RuntimeError as error:
            if no_thread(error):
                raise thread_refused(error, None) from error
            raise

    def warn(self) -> None:
        """Log the warnings that the store gave when it was opened, for a program that takes a lock; one that only looks needs none."""
        while self._warnings:
            try:
                _log.warning("%s", printable(self._warnings.pop(0)))
            except IndexError:  # another thread tells it
                return

    def mine(self, name: str) -> list[Hold]:
        """Holds of a name that this process has through this client."""
        return self._taken.get(name, [])

    def took(self, hold: Hold) -> None:
        """Note a hold, for deadlocks and reentrancy."""
        hold.where = self._where
        name = hold.claim.terms.name
        with self._mutex.of_this_process():
            before = self._taken.get(name)
            self._taken[name] = [*(old for old in before if old.standing), hold] if before else [hold]
            if len(self._taken) > self._most_taken:
                self._forget_the_fallen()

    def gave_up(self, hold: Hold) -> None:
        """Forget a hold."""
        name = hold.claim.terms.name
        with self._mutex.of_this_process():
            taken = self._taken.get(name, ())
            others = [other for other in taken if other is not hold]
            if others:
                self._taken[name] = others
            elif (
                taken and self._taken.get(name) is taken
            ):  # else a signal handler has locked the same name meanwhile
                self._taken.pop(name, None)

    def _forget_the_fallen(self) -> None:
        """Forget holds that were lost or collected, which nobody gives up; at doubling sizes, so it costs next to nothing."""
        standing = {name: [hold for hold in holds if hold.standing] for name, holds in self._taken.items()}
        self._taken = {name: holds for name, holds in standing.items() if holds}
        self._most_taken = max(_FEW, 2 * len(self._taken))

    def look(self, gone: object = None) -> None:  # noqa: ARG002 (what is gone, to the callback of a weak reference)
        """Have the background look for leases that were collected, or whose ``with`` was left. A finalizer may call this: it takes no lock."""
        driver = self._own_driver()
        if driver is not None:
            driver.heartbeat.look()

    def handle(self, hold: Hold) -> dict[str, object]:
        """What another process needs to release it. Contains the token."""
        return {
            "v": 1,
            "namespace": self.namespace,
            "name": hold.name,
            "token": hold.claim.token,
            "fence": hold.fence,
        }

    def skipped(self, skipped: Skipped) -> None:
        """Count and tell a call that was skipped because its lock was busy."""
        self._counters.add("skipped")
        holder = str(skipped.holder.owner) if skipped.holder else None
        self.driver().dispatcher.tell(Event("skipped", skipped.name, data={"holder": holder}))

    def _open(self, budget: float) -> Driver:
        from lockkit.drivers.dispatch import Dispatcher
        from lockkit.drivers.lifecycle import at_exit
        from lockkit.drivers.threads import Driver
        from lockkit.observe import journal  # noqa: F401 (when it is needed, files may be all that is short)

        asked = self.clock.now()
        with self._own_mutex():
            driver = self._own_driver()
            if driver is not None:
                return driver
            if self._closed:
                raise AcquireCancelled("this client is closed", hint="connect again")
            if self._refused is not None and self._refused[0] >= asked:
                raise self._refused[1]  # somebody tried while this thread waited; its budget is used up
            config = self.config
            self._warnings = []
            state_dir = str(config.state_place().path) if self.capabilities.scope == "host" else None
            if self.url_source == "default" and state_dir is not None:
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
            try:
                backend = self.plugins.open(config.url, options)
            except (Refused, Unknown) as trouble:
                self._refused = (self.clock.now(), trouble)
                raise
            self.capabilities = backend.capabilities
            self._driver = Driver(
                backend,
                self.clock,
                self._counters,
                Dispatcher(
                    self._counters,
                    self.clock,
                    self.plugins.implementations("lockkit_event"),
                    self.plugins.implementations("lockkit_alert"),
                ),
                _Hooks(self.plugins),
                _Journal(config),
                config.cleanup_budget,
                config.request_timeout,
            )
            at_exit(self._driver)
            return self._driver

    def _warn(self, message: str) -> None:
        """The store has something to warn of."""
        self._warnings.append(message)
        if self._driver is not None:  # it is not about opening it
            self.warn()

    def _suspect(self, token: str) -> None:
        """The store believes that a claim is gone."""
        driver = self._own_driver()
        if driver is not None:
            driver.heartbeat.suspect(token)

    def _own_mutex(self) -> threading.RLock:
        """The mutex of this process; in a forked child everything of the parent's is put aside first."""
        mutex = self._mutex.of_this_process()
        if self._pid != os.getpid():
            with mutex:
                if self._pid != os.getpid():
                    self._driver = self._ended = None
                    self._taken = {}
                    self._counters = Counters()
                    self._warnings = []
                    self._pid = os.getpid()  # last: whoever sees it sees the rest as well
        return mutex

    def _own_driver(self) -> Driver | None:
        """The engine of this process if there is one; never the parent's."""
        driver = self._driver
        return driver if driver is not None and driver.pid == os.getpid() else None


# The engine outlives a client that is dropped, and must not keep it alive: what it is given refers to no client.


class _Hooks:
    """The cleanup hooks in force."""

    def __init__(self, plugins: PluginManager) -> None:
        self._plugins = plugins

    def __call__(self) -> list[Implementation]:
        return list(self._plugins.implementations("lockkit_cleanup"))


class _Journal:
    """Writes critical-failure records; a full disk must not break the release that it reports."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, record: dict[str, object]) -> None:
        try:
            from lockkit.observe import journal

            journal.append(self._config.state_place().path, record)
        except Exception:
            _log.exception("could not write the critical-failure record %r", record)


def _weakly(method: Callable[[str], None]) -> Callable[[str], None]:
    """The method for as long as its object lives; then nothing."""
    found = weakref.WeakMethod(method)

    def call(argument: str) -> None:
        alive = found()
        if alive is not None:
            alive(argument)

    return call


def connect(
    url: str | None = None,
    *,
    namespace: str | None = None,
    profile: str | None = None,
    config: Config | None = None,
    plugins: Iterable[object] = (),
    on_sigterm: Literal["release"] | None = None,
    strict: bool | None = None,
    scope: Literal["process", "host", "fleet"] | None = None,
    state_dir: str | None = None,
    task: str | None = None,
    where: Literal["process", "wrapper"] = "process",
    clock: Clock = SYSTEM,
) -> Client:
    """Make a client. No I/O beyond reading config files: the store is opened when it is first used.

    Args:
        url: Which store; None: from the config layers, by default the embedded store of this host.
        namespace: Prefix of a deployment.
        profile: A ``[profiles.x]`` of the config.
        config: Settings loaded before; the other settings here are laid over it only if it is None.
        plugins: Modules or objects with hooks, beside the installed ones.
        on_sigterm: "release" releases what is held when SIGTERM comes, then does what SIGTERM did before.
        strict: Refuse what is known to be unsafe about the store instead of warning.
        scope: Refuse a store that excludes less than this.
        state_dir: Where embedded stores and journals live.
        task: What this process works on; shown with its claims.
        clock: Time; a simulation passes its own.
        where: "wrapper" for a program that runs another under a lock.

    Raises:
        ConfigError: A setting is not allowed, the store does not reach as far as ``scope`` demands, or the URL's scheme is
            unknown; it says what is allowed, or what to install.
        PluginError: One of ``plugins`` is broken.
    """
    from lockkit.config import load
    from lockkit.drivers.lifecycle import on_sigterm as release_on_sigterm
    from lockkit.plugins import PluginManager

    if config is None:
        config = load(
            url=url, namespace=namespace, profile=profile, strict=strict, scope=scope, state_dir=state_dir
        )
    if on_sigterm not in (None, "release"):
        raise ConfigError(f"on_sigterm must be None or 'release', not {on_sigterm!r}")
    manager = PluginManager(
        plugins, disabled=config.disable_plugins, raise_errors=config.plugin_errors == "raise"
    )
    client = Client(config, manager, clock=clock, task=task, where=where)
    if on_sigterm == "release":
        release_on_sigterm(client)
    return client
