"""The runner of the alert engine: a thread that takes in what happened, looks at the store, and hands notifications over.

Several processes share the work. Of those of one user on one host, one runs the engine, by a lock on a file, which also works while the store
does not answer; the others leave what they hear for it. Of all that run an engine on one store, one looks at the locks, by a lockkit lock.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lockkit.alerts import inbox as inboxes
from lockkit.alerts.desk import STATE, Desk, folder_of, write
from lockkit.alerts.engine import Engine
from lockkit.alerts.grouping import Timing
from lockkit.alerts.happenings import Happening, Look, counted
from lockkit.alerts.in_force import of_config
from lockkit.alerts.inbox import Inbox
from lockkit.alerts.looking import look_at
from lockkit.clock import SYSTEM
from lockkit.errors import BackendUnavailable, ConfigError, LockkitError, OutcomeUnknown
from lockkit.names import ALERTER, STANDING
from lockkit.places import make_folders
from lockkit.printable import printable
from lockkit.store.ttls import UsualTtl

if TYPE_CHECKING:
    from lockkit.alerts.notification import Notification
    from lockkit.client import Client
    from lockkit.clock import Clock
    from lockkit.config import Config
    from lockkit.lease import Lease

__all__ = ["LOCK", "Runner"]

_log = logging.getLogger("lockkit.alerts")
LOCK = ALERTER
_TTL = 30.0
_STEP = 1.0
"""Seconds between two steps."""
_LOCK_FILE = "engine.lock"


class Runner:
    """The runner. Make it after a fork, not before.

    Args:
        client: The client of the store and namespace; it should have been connected with the inbox as a plugin.
        inbox: Where its events and alerts arrive.
        sinks: The functions that are called with each notification, in order, on the runner's thread: so each must return at once, as
            ``Delivery.put`` does. First the log and the journal, so that they have what nobody else takes.
        clock: The clock; its wall time is that of notifications.

    Attributes:
        desk: The alerts, for those who look at them and decide about them.
        running: Whether this process runs the engine; otherwise it hands over what it hears.
        dropped: The number of happenings that could not be handed over.
    """

    def __init__(
        self,
        client: Client,
        inbox: Inbox,
        sinks: Sequence[Callable[[Notification], object]],
        clock: Clock = SYSTEM,
    ) -> None:
        self._client = client
        self._inbox = inbox
        self._sinks = sinks
        self._clock = clock
        self._config: Config = client.config
        self.desk = Desk(folder_of(client.config), clock)
        self.running = False
        self.dropped = 0
        self._engine: Engine | None = None
        self._lease: Lease | None = None
        self._lock: int | None = None
        self._look_at = 0.0
        self._stats: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run on a thread of its own until :meth:`close`."""
        self._thread = threading.Thread(target=self.run, name="lockkit-alerts", daemon=True)
        self._thread.start()

    def close(self, within: float = 5.0) -> None:
        """End the thread, and give up what it holds. Waits at most ``within`` seconds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(within)

    def run(self) -> None:
        """Step again and again until :meth:`close`. A step that fails is logged, and the next one follows."""
        try:
            while not self._stop.is_set():
                try:
                    self.step()
                except LockkitError as error:
                    _log.warning("alerts: %s", printable(str(error)))
                except Exception as error:
                    _log.exception("alerts: a step failed: %s", printable(repr(error)))
                self._stop.wait(_STEP)
        finally:
            self._resign()

    def step(self) -> list[Notification]:
        """One step: take in, look if it is time to, decide, hand over, save. Returns what was handed over.

        The state is saved after the notifications are handed over, so each is handed over at least once.
        """
        happened = self._inbox.take()
        if not self._run_here():
            self.dropped += inboxes.hand_over(self.desk.folder, happened)
            return []
        engine = self._engine
        assert engine is not None
        happened += inboxes.handed_over(self.desk.folder)
        look = None
        if self._clock.now() >= self._look_at:
            self._look_at = self._clock.now() + self._config.alerts_look_every
            self._reload(engine)
            happened += self._counters()
            look = self._look()
        told = engine.step(self._clock.wall(), happened, look, self.desk.decisions())
        for notification in told:
            for sink in self._sinks:
                self._hand(sink, notification)
        if told or happened or look is not None:
            write(self.desk.folder / STATE, engine.state)
        return told

    def _hand(self, sink: Callable[[Notification], object], notification: Notification) -> None:
        try:
            sink(notification)
        except Exception as error:
            _log.error("alerts: a sink failed: %s", printable(repr(error)))

    # -- who runs the engine

    def _run_here(self) -> bool:
        """Whether this process runs the engine; it begins to if no other one does."""
        if self._lock is not None:
            return True
        make_folders(self.desk.folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(self.desk.folder / _LOCK_FILE, flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        try:
            self._engine = self._load()
        except BaseException:
            os.close(handle)
            raise
        self._lock, self.running = handle, True
        return True

    def _load(self) -> Engine:
        return Engine(
            of_config(self._config),
            _timing(self._config),
            self.desk.state(),
            now=self._clock.wall(),
            labels={"namespace": self._client.namespace},
        )

    def _resign(self) -> None:
        lease, self._lease = self._lease, None
        handle, self._lock, self.running = self._lock, None, False
        if handle is not None:
            os.close(handle)
        if lease is not None:
            lease.release()

    # -- looking

    def _reload(self, engine: Engine) -> None:
        """Read the rules, ages and times again if a file has changed. One that is wrong is logged, and the old ones stay."""
        if not self._config.stale():
            return
        try:
            config = self._config.reload()
            engine.rules, engine.timing = of_config(config), _timing(config)
            self._config = config
        except ConfigError as error:
            _log.warning("alerts go on with their old rules: %s", printable(str(error)))

    def _counters(self) -> list[Happening]:
        before, self._stats = self._stats, dict(self._client.stats())
        return counted(before, self._stats)

    def _look(self) -> Look:
        try:
            if not self._elected():
                return Look(elected=False)
        except (BackendUnavailable, OutcomeUnknown) as error:
            return Look(unreachable=error.message)
        return look_at(self._client, self._config, besides=STANDING)

    def _elected(self) -> bool:
        """Whether this engine is the one that looks at the locks."""
        if self._lease is not None and self._lease.valid():
            return True
        self._lease = None
        try:
            self._lease = self._client.lock(LOCK, ttl=UsualTtl(_TTL)).try_acquire(reason="alerts")
        except (BackendUnavailable, OutcomeUnknown):
            raise
        except LockkitError as error:  # a drained namespace, for instance
            _log.debug("alerts: not elected: %s", error)
        return self._lease is not None


def _timing(config: Config) -> Timing:
    return Timing(
        config.alerts_group_wait,
        config.alerts_group_interval,
        config.alerts_repeat_interval,
        config.alerts_most_per_hour,
    )
